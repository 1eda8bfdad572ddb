"""pastax as a second engine: the same model, integrated and measured by pastax.

[pastax](https://github.com/vadmbertr/pastax) 0.1 is a differentiable drift simulator. Here its own classes hold a
sample (`pastax.Dataset`, positions as `[lon, lat]` in degrees), its own interpolation, coastal scheme, solvers and
conversions move the members (`pastax.solve`), and its own distance and score judge them; kappa and its gradient, which
pastax leaves to its users, are written once more here. `simulate` takes and gives what `drift.simulate.simulate` does,
so everything above it is the same for both engines.

pastax draws its noise inside `solve`. Ours is prescribed instead: increments go in as `controls`, and a solver that
wraps pastax's hands them to its `sde_step` as the Wiener increments.

This module can be imported only where pastax is installed; `drift.engines` is the one place that does so.
"""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pastax  # pyright: ignore[reportMissingImports]
from jaxtyping import Array, Bool, Float, Int
from pastax.solver import AbstractSolver  # pyright: ignore[reportMissingImports]

from driftcal.shared.errors import ConfigError
from driftcal.shared.geo import METRES_PER_DEGREE, unwrap_longitude
from driftcal.shared.store.reader import ShardStore
from driftcal.shared.store.schema import FILL, SCALE
from driftcal.train.learners.drift.noise import Noise
from driftcal.train.learners.drift.scoring_rules import Distances
from driftcal.train.learners.drift.simulate import GRADIENT_SHARE, Dynamics, Plan, Simulation
from driftcal.train.learners.drift.smagorinsky import Flow
from driftcal.train.reading.batches import Batch, Grid
from driftcal.train.settings import Scheme

SOLVERS: dict[Scheme, type[AbstractSolver]] = {
    "heun": pastax.Heun,
    "euler": pastax.Euler,
    "reference": pastax.Heun,
}
"""pastax's solver of each scheme. It has none whose noise acts with the amplitude of the start of the step while the
drift is Heun's: `ito-heun` is refused (`driftcal.train.settings`)."""

AT_ONCE = 4
"""Samples simulated side by side: pastax's score makes arrays of members x members x fixes for each of them."""


class Sample(NamedTuple):
    """One sample of a store in pastax's own classes, ready for `pastax.solve`.

    Attributes:
        dataset: fields `u`, `v` [m/s] on the window's grid, with their land mask. Longitudes ascend without a jump,
            also where the window crosses the antimeridian; times are seconds since 1970-01-01 UTC.
        y0: first fix, [lon, lat] [degrees].
        t0: its time [s].
        track: all fixes, [lon, lat] [degrees]; longitude as in `dataset`.
    """

    dataset: Any
    y0: Float[Array, "2"]
    t0: Float[Array, ""]
    track: Float[Array, "obs 2"]


def sample_of(store: ShardStore, number: int) -> Sample:
    """Sample `number` of `store` for pastax; 64-bit (`jax.enable_x64`) must be on, as pastax's times need it.

    Raises:
        ConfigError: 64-bit is off: seconds since 1970 do not fit into float32.
    """
    if jnp.zeros(()).dtype != jnp.float64:
        raise ConfigError(
            "pastax counts seconds since 1970, which float32 resolves to minutes only. Switch 64-bit on first: "
            'jax.config.update("jax_enable_x64", True).'
        )
    layout, labels = store.layout, store.labels
    counts = store.currents.read(np.array([number]))[0]
    # as training sees it: land is a cell without a current at any level
    ocean = (counts != FILL).all(axis=(0, 1))
    u, v = np.where(ocean, counts * SCALE, np.nan)
    lon, lat = (
        labels["window_corner"][number, k] + step * np.arange(n)
        for k, (step, n) in enumerate([(layout.lon_step, layout.n_lon), (layout.lat_step, layout.n_lat)])
    )
    relative = store.positions.read(np.array([number]))[0].astype(np.float64)
    relative[:, 0] = unwrap_longitude(relative[:, 0], axis=0)
    track = jnp.asarray(labels["origin"][number] + relative)
    times = int(labels["window_time"][number]) + layout.time_step * np.arange(layout.n_times)
    dataset = pastax.Dataset.from_arrays(
        {"u": u, "v": v}, t=jnp.asarray(times), lat=lat, lon=lon, dtype=jnp.float64, masks={"u": ~ocean, "v": ~ocean}
    )
    return Sample(dataset, track[0], jnp.asarray(float(labels["start_time"][number])), track)


class Forcing(NamedTuple):
    """Fields that a term reads: `currents`: `u`, `v` [m/s]; `diffusion`: `kappa` [m2/s], `kappa_x`, `kappa_y` [m/s].

    Degrees of longitude are counted from the window's western column, seconds from its first level. Longitude enters
    pastax as differences alone, so counting it from elsewhere changes nothing, and in a window there is no seam.
    """

    currents: Any
    diffusion: Any


def forcing_of(
    currents: Int[Array, "2 time lat lon"], latitude: Float[Array, ""], grid: Grid, kappa_every: int
) -> Forcing:
    """A window as pastax's datasets; kappa and its gradient are computed every `kappa_every` seconds.

    pastax interpolates all fields linearly in time. With `kappa_every` equal to the step every stage falls on a level
    of `diffusion`; otherwise the gradient of kappa is linear in time here, and constant in each interval in
    `drift.smagorinsky`.

    Args:
        currents: [1e-4 m/s], FILL on land.
        latitude: of the southern row [degrees].
        grid: the window's grid.
        kappa_every: interval of the levels of `diffusion` [s].
    """
    dtype = latitude.dtype
    ocean = (currents != FILL).all(axis=(0, 1))
    u, v = jnp.where(ocean, currents.astype(dtype) * dtype.type(SCALE), 0.0)
    lat = latitude + jnp.arange(grid.n_lat, dtype=dtype) * grid.lat_step
    lon = jnp.arange(grid.n_lon, dtype=dtype) * grid.lon_step

    def dataset(every: int, fields: dict[str, Array]) -> Any:
        n_levels = (grid.n_times - 1) * grid.time_step // every + 1
        axes = pastax.Grid(t_coords=jnp.arange(n_levels, dtype=dtype) * every, lat_coords=lat, lon_coords=lon)
        masked = {k: pastax.Field(jnp.where(ocean, f, 0.0), axes, mask=~ocean) for k, f in fields.items()}
        return pastax.Dataset(masked, axes)

    fine = grid.time_step // kappa_every
    share = (jnp.arange(fine, dtype=dtype) / fine)[:, None, None]

    def refine(f: Array) -> Array:
        between = f[:-1, None] + share * (f[1:, None] - f[:-1, None])
        return jnp.concatenate([between.reshape(-1, grid.n_lat, grid.n_lon), f[-1:]])

    dy = METRES_PER_DEGREE * grid.lat_step
    dx = (METRES_PER_DEGREE * grid.lon_step * jnp.cos(jnp.radians(lat)))[:, None]
    u_x, v_x = (_difference(refine(f), ocean, -1) / dx for f in (u, v))
    u_y, v_y = (_difference(refine(f), ocean, -2) / dy for f in (u, v))
    kappa = dx * dy * pastax.safe_sqrt(u_x**2 + v_y**2 + 0.5 * (u_y + v_x) ** 2)
    gradient = _difference(kappa, ocean, -1) / dx, _difference(kappa, ocean, -2) / dy
    return Forcing(
        dataset(grid.time_step, {"u": u, "v": v}),
        dataset(kappa_every, {"kappa": kappa, "kappa_x": gradient[0], "kappa_y": gradient[1]}),
    )


def _difference(f: Float[Array, "time lat lon"], ocean: Bool[Array, "lat lon"], axis: int) -> Array:
    """Difference of `f` per cell along `axis`: centred, one-sided at coasts and edges, else 0; stated once more here.

    So that the second engine shares none of the arithmetic that it is there to check.
    """
    inner = jnp.arange(f.shape[axis])
    inner = inner[:, None] if axis == -2 else inner
    ahead = jnp.roll(ocean, -1, axis) & (inner < f.shape[axis] - 1)
    behind = jnp.roll(ocean, 1, axis) & (inner > 0)
    total = jnp.where(ahead, jnp.roll(f, -1, axis) - f, 0.0) + jnp.where(behind, f - jnp.roll(f, 1, axis), 0.0)
    return total / jnp.maximum(ahead.astype(f.dtype) + behind, 1.0)


class Term(eqx.Module):
    """Dynamics of `train` as a term of pastax: `(t, [lon, lat], forcing) -> (drift, diffusion)`.

    Drift [degrees/s] and the diagonal diffusion [degrees s^-1/2] are both along [lon, lat].
    """

    dynamics: Dynamics
    gradient_share: float = eqx.field(static=True)

    def __call__(
        self,
        t: Float[Array, ""],
        y: Float[Array, "2"],
        args: Forcing,
        ctrl: Any = None,  # noqa: ARG002 - pastax gives it
    ) -> tuple[Float[Array, "2"], Float[Array, "2"]]:
        """The two at time `t` [s] and position `y`; `ctrl`, the increments, is the solver's business."""
        u, v = args.currents.velocity_interp(t, y[0], y[1])
        kappa, kappa_x, kappa_y = (args.diffusion[k].interp(t, y[0], y[1]) for k in ("kappa", "kappa_x", "kappa_y"))
        flow = Flow(u, v, kappa, kappa_x, kappa_y, _ashore(args, y))
        drift, amplitude = self.dynamics(flow, self.gradient_share)
        along = amplitude if isinstance(amplitude, tuple) else (amplitude, amplitude)
        in_metres = jnp.stack([jnp.stack(drift), jnp.stack(along)])
        in_degrees = pastax.meters_to_degrees(in_metres, y[1])
        return in_degrees[0], in_degrees[1]


def _ashore(forcing: Forcing, y: Float[Array, "2"]) -> Bool[Array, ""]:
    """Tells whether `y` lies in a cell of four land corners, where a masked field of ones is 0 to pastax."""
    field = forcing.currents["u"]
    ones = jnp.ones((2, *field.mask.shape), y.dtype)
    axes = pastax.Grid(jnp.arange(2, dtype=y.dtype), field.lat_coords, field.lon_coords)
    return pastax.Field(ones, axes, mask=field.mask).interp(jnp.zeros((), y.dtype), y[0], y[1]) == 0.0


class Member(NamedTuple):
    """State of a member: `position` [lon, lat] [degrees], and whether it has been `inside` its window so far."""

    position: Float[Array, "*n 2"]
    inside: Bool[Array, "*n"]


class Prescribed(AbstractSolver):
    """A solver of pastax driven by given increments, which stops members that leave the window where they left it.

    Used in pastax's mode of ordinary differential equations with controls: the controls of a step are its standard
    normal increments.

    Attributes:
        solver: steps the positions.
        least: south-western corner of the window [degrees].
        most: north-eastern corner.
    """

    solver: AbstractSolver
    least: Float[Array, "2"]
    most: Float[Array, "2"]

    def ode_step(self, term: Any, t: Any, y: Member, dt: Any, args: Any, ctrl: Any) -> Member:
        """One step of `solver` with the increments `ctrl`."""
        moved = self.solver.sde_step(term, t, y.position, dt, args, ctrl, ctrl)
        # a NaN counts as inside, so that it poisons its sample instead of passing for a member that left
        inside = y.inside & ~((moved < self.least) | (moved > self.most)).any()
        return Member(jnp.where(inside, moved, y.position), inside)

    def sde_step(self, term: Any, t: Any, y: Any, dt: Any, args: Any, ctrl: Any, z: Any) -> Any:
        """Raises, since the increments are given."""
        raise NotImplementedError("Prescribed is driven by controls: call pastax.solve without a key.")


def simulate(
    dynamics: Dynamics,
    batch: Batch,
    plan: Plan,
    members: int,  # noqa: ARG001 - the noise has as many
    noise: Noise,
    own_lengths: bool = False,
    keep_positions: bool = False,
    table: Any = None,  # noqa: ARG001
    checkpoint: bool = False,  # noqa: ARG001
) -> Simulation:
    """`drift.simulate.simulate` by `pastax.solve`; same arguments, same increments, same result.

    Args:
        dynamics: drift and diffusion in a flow.
        batch: B samples.
        plan: the grid and the scheme.
        members: S.
        noise: increments of every step.
        own_lengths: whether the distances of the `reference` objective are needed too.
        keep_positions: whether to return the tracks.
        table: not used: pastax interpolates from its own datasets.
        checkpoint: not used: this engine's gradients are taken in forward mode.
    """
    grid, dtype = plan.grid, batch.latitude.dtype
    steps_deg = jnp.array([grid.lon_step, grid.lat_step], dtype)
    extent = steps_deg * jnp.array([grid.n_lon - 1, grid.n_lat - 1], dtype)
    term = Term(dynamics, GRADIENT_SHARE[plan.scheme])
    steps = jnp.arange((grid.n_obs - 1) * plan.n_sub)
    increments = jax.vmap(lambda step: jnp.stack(list(noise(step))))(steps).transpose(3, 2, 0, 1)  # (B, S, step, 2)

    def one(sample: tuple[Array, ...]) -> Simulation:
        currents, latitude, cell, track, phase, z = sample
        corner = jnp.stack([jnp.zeros_like(latitude), latitude])
        observed = corner + (track + cell) * steps_deg
        forcing = forcing_of(currents, latitude, grid, plan.kappa_every)
        solver = Prescribed(SOLVERS[plan.scheme](), corner, corner + extent)

        def track_of(controls: Float[Array, "step 2"]) -> Member:
            return pastax.solve(
                term,
                Member(observed[0], jnp.asarray(True)),
                phase,
                n_save=grid.n_obs - 1,
                int_dt=float(plan.step),
                save_dt=float(grid.obs_step),
                solver=solver,
                args=forcing,
                controls=controls,
                adjoint="forward",
            )

        found = jax.vmap(track_of)(z)
        tracks = found.position
        cells = (tracks[:, 1:] - corner) / steps_deg - cell
        return Simulation(
            _distances(tracks, observed, own_lengths),
            found.inside[:, -1],
            jax.vmap(lambda y: _ashore(forcing, y))(tracks[:, -1]),
            cells.transpose(1, 2, 0) if keep_positions else None,
        )

    samples = batch.currents, batch.latitude, batch.cell, batch.track, batch.phase, increments
    each = jax.lax.map(one, samples, batch_size=AT_ONCE)
    return jax.tree.map(lambda leaf: jnp.moveaxis(leaf, 0, -1), each)


def _distances(tracks: Float[Array, "S obs 2"], observed: Float[Array, "obs 2"], own_lengths: bool) -> Distances:
    """Distances at every fix but the first, by pastax's own metric and fair score."""
    n, ahead, seen = len(tracks), tracks[:, 1:], observed[1:]
    # pastax's safe square root takes a NaN for 0, and so a lost member for one that is on the spot: it must poison
    poison = jnp.where(jnp.isfinite(ahead).all(axis=(0, 2)), 0.0, jnp.nan).astype(tracks.dtype)
    to_observed = pastax.separation_distance(ahead, seen).mean(axis=0) + poison
    between = to_observed - pastax.energy_score(ahead, seen, kernel=pastax.separation_distance)
    if not own_lengths:
        return Distances(to_observed, between, None, None)
    pairs = pastax.separation_distance(ahead[:, None], ahead[None])
    moved = pastax.separation_distance(ahead, tracks[:, :-1])
    return Distances(to_observed, between, (pairs.sum(axis=1) / (n - 1)).T, moved.T)
