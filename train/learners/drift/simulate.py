"""The simulation: one scan through time over all members of all samples.

State: positions in cells relative to the starting cell, arrays of shape (member, sample) so that every operation runs
along samples. Schemes, for drift a and amplitude b as functions of (X, t), noise dW ~ N(0, dt):

    heun       predictor X1 = X + a dt + b dW; X + (a + a1) dt / 2 + (b + b1) dW / 2, a with half of grad K:
               Stratonovich-Heun, whose noise term supplies the other half, so that it integrates the Ito equation
    ito-heun   the same for a, but b dW at the start of the step, a with the whole of grad K
    euler      Euler-Maruyama: X + a dt + b dW, a with the whole of grad K
    reference  heun with the whole of grad K, as the 2025 pastax: it integrates u + 1.5 grad K, kept for comparison

A member that leaves its window is held where it last was inside, and counted. Metres become cells with cos(lat) at
the particle.
"""

from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from driftcal.shared.geo import METRES_PER_DEGREE
from driftcal.train.learners.drift.noise import Noise
from driftcal.train.learners.drift.scoring_rules import Distances, distances
from driftcal.train.learners.drift.smagorinsky import Flow, Place, Table, flow_at, tabulate
from driftcal.train.learners.drift.sphere import Origin, Point
from driftcal.train.reading.batches import Batch, Grid
from driftcal.train.settings import Engine, Scheme

GRADIENT_SHARE: dict[Scheme, float] = {"heun": 0.5, "ito-heun": 1.0, "euler": 1.0, "reference": 1.0}
"""Share of grad K that each scheme adds to the drift."""

Amplitude = Array | tuple[Array, Array]
"""Amplitude of the noise [m s^-1/2]: one for both directions, or east and north."""

Dynamics = Callable[[Flow, float], tuple[tuple[Array, Array], Amplitude]]
"""(flow, gradient share) -> ((east, north) drift [m/s], amplitude [m s^-1/2])."""


class Plan(eqx.Module):
    """The settings of an integration, which do not change during a run: static under jit."""

    grid: Grid = eqx.field(static=True)
    step: int = eqx.field(static=True)
    kappa_every: int = eqx.field(static=True)
    scheme: Scheme = eqx.field(static=True)
    engine: Engine = eqx.field(static=True, default="driftcal")

    @property
    def n_sub(self) -> int:
        """Steps between two fixes."""
        return self.grid.obs_step // self.step


class Simulation(NamedTuple):
    """The result of a simulation.

    Attributes:
        distances: between members, and from them to the observed track, at every fix but the first.
        inside: True for members inside their window to the end.
        ashore: True for those that ended in a cell without any current.
        positions: all members at every fix but the first, (column, row) [cells] relative to the starting cell; None
            unless asked for.
    """

    distances: Distances
    inside: Bool[Array, "S B"]
    ashore: Bool[Array, "S B"]
    positions: Float[Array, "obs 2 S B"] | None


class Stepper(NamedTuple):
    """One step of a batch, and its inputs.

    Attributes:
        advance: (x, y, inside, number of the step) -> (x, y, inside) a step later.
        flow: (x, y, number of the step) -> the flow at positions x, y at the start of that step.
    """

    advance: Callable[[Array, Array, Array, Array], tuple[Array, Array, Array]]
    flow: Callable[[Array, Array, Array], Flow]


def stepper(dynamics: Dynamics, batch: Batch, plan: Plan, noise: Noise, table: Table) -> Stepper:
    """The step that `simulate` scans; positions in cells relative to the starting cell."""
    grid, dtype = plan.grid, batch.latitude.dtype
    per_x, per_y = 1.0 / (METRES_PER_DEGREE * grid.lon_step), 1.0 / (METRES_PER_DEGREE * grid.lat_step)
    radians_y = np.radians(grid.lat_step)
    start_longitude = batch.longitude + batch.cell[:, 0].astype(dtype) * grid.lon_step
    start_latitude = batch.latitude + batch.cell[:, 1].astype(dtype) * grid.lat_step
    origin = Origin.at(start_latitude)
    dt = dtype.type(plan.step)
    root_dt = jnp.sqrt(dt)
    share = GRADIENT_SHARE[plan.scheme]
    n_stages = 1 if plan.scheme == "euler" else 2
    least = -batch.cell.astype(dtype)
    most = jnp.array([grid.n_lon - 1, grid.n_lat - 1], dtype) + least

    # of all steps at once: within the loop it would be done for every member, in every stage
    seconds = jnp.arange((grid.n_obs - 1) * plan.n_sub + 1).astype(dtype)[:, None] * dt
    levels = (batch.phase + seconds) * dtype.type(table.intervals_per_second)
    interval = jnp.clip(jnp.floor(levels).astype(jnp.int32), 0, table.n_intervals - 1)
    share_of_interval = levels - interval.astype(dtype)

    def flow(x: Array, y: Array, step: Array) -> Flow:
        """The flow at positions x, y at the start of `step`."""
        there = flow_at(table, grid, x, y, batch.cell, interval[step], share_of_interval[step])
        place = Place(step.astype(dtype) * dt, start_longitude + x * grid.lon_step, start_latitude + y * grid.lat_step)
        return there._replace(place=place)

    def motion(x: Array, y: Array, step: Array) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
        """Drift [cells/s] and amplitude [cells s^-1/2], east and north, at positions x, y at the start of `step`."""
        (east, north), amplitude = dynamics(flow(x, y, step), share)
        along_x, along_y = amplitude if isinstance(amplitude, tuple) else (amplitude, amplitude)
        per_east = per_x / origin.cos_latitude(y * radians_y)
        return (east * per_east, north * per_y), (along_x * per_east, along_y * per_y)

    def advance(x: Array, y: Array, inside: Array, step: Array) -> tuple[Array, Array, Array]:
        w = [increment * root_dt for increment in noise(step)]

        def stage(k: Array, carry: tuple) -> tuple:
            sum_x, sum_y, *kick = carry
            a, b = motion(x + sum_x, y + sum_y, step + k)
            kicks = b[0] * w[0], b[1] * w[1]
            if kick:  # the noise acts with the amplitude of the start of the step
                kicks = tuple(jnp.where(k == 0, new, old) for new, old in zip(kicks, kick, strict=True))
            return sum_x + (a[0] * dt + kicks[0]), sum_y + (a[1] * dt + kicks[1]), *(kicks if kick else ())

        # A loop, though of two: it halves what there is to compile, and its bounds make the predictor a value. Only
        # sums are carried: XLA:CPU computes every output of a stage from the start.
        carry = (jnp.zeros_like(x),) * (4 if plan.scheme == "ito-heun" else 2)
        sum_x, sum_y, *_ = jax.lax.fori_loop(0, n_stages, stage, carry)
        new_x, new_y = x + sum_x / n_stages, y + sum_y / n_stages
        # written so that a NaN counts as inside: it must poison the sample, not pass for one that left
        inside &= ~((new_x < least[:, 0]) | (new_x > most[:, 0]) | (new_y < least[:, 1]) | (new_y > most[:, 1]))
        return jnp.where(inside, new_x, x), jnp.where(inside, new_y, y), inside

    return Stepper(advance, flow)


def simulate(
    dynamics: Dynamics,
    batch: Batch,
    plan: Plan,
    members: int,
    noise: Noise,
    own_lengths: bool = False,
    keep_positions: bool = False,
    table: Table | None = None,
    checkpoint: bool = False,
) -> Simulation:
    """Simulates `members` tracks from the first fix of every sample to its last.

    Args:
        dynamics: drift and diffusion in a flow.
        batch: B samples.
        plan: the grid and the scheme.
        members: S.
        noise: increments of every step.
        own_lengths: whether the distances of the `reference` objective are needed too.
        keep_positions: whether to return the tracks.
        table: of `batch`, where it has been made before.
        checkpoint: whether reverse mode will keep only the state at every fix, and step again from one to the next.
    """
    grid = plan.grid
    if table is None:
        table = tabulate(batch.currents, batch.latitude, grid, plan.kappa_every, plan.step)
    advance, flow = stepper(dynamics, batch, plan, noise, table)
    radians_x, radians_y = np.radians(grid.lon_step), np.radians(grid.lat_step)
    origin = Origin.at(batch.latitude + batch.cell[:, 1].astype(batch.latitude.dtype) * grid.lat_step)

    def to_next_fix(carry: tuple, given: tuple[Array, Point]) -> tuple[tuple, tuple]:
        fix, seen = given

        def substep(k: Array, inner: tuple) -> tuple:
            x, y, inside = inner
            return advance(x, y, inside, fix * plan.n_sub + k)

        x, y, inside = jax.lax.fori_loop(0, plan.n_sub, substep, carry)
        members, before = (origin.point(at[0] * radians_x, at[1] * radians_y) for at in ((x, y), carry))
        at_fix = distances(members, seen, before if own_lengths else None)
        return (x, y, inside), (at_fix, jnp.stack([x, y]) if keep_positions else None)

    shape = members, batch.start.shape[0]
    x0, y0 = (jnp.broadcast_to(batch.start[:, c], shape) for c in (0, 1))
    carry = x0, y0, jnp.ones(shape, bool)
    track = batch.track[:, 1:].transpose(1, 2, 0)
    seen = origin.point(track[:, 0] * radians_x, track[:, 1] * radians_y)
    body = jax.checkpoint(to_next_fix, prevent_cse=False) if checkpoint else to_next_fix
    (x, y, inside), (found, positions) = jax.lax.scan(body, carry, (jnp.arange(grid.n_obs - 1), seen))
    ashore = flow(x, y, jnp.asarray((grid.n_obs - 1) * plan.n_sub)).ashore
    return Simulation(found, inside, ashore, positions)
