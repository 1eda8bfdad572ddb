"""How far tracks differ between this project and pastax, the same increments given, on samples of a store.

Everything is set beside `engine=driftcal` in float64 with kappa at every step: rms over samples and members of the
distance at the last fix, and the ensembles' own spread to judge it by. Needs pastax.

    python -m benchmarks.pastax_differences demo/store --cs 0.3
"""

import argparse
import sys
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pastax  # pyright: ignore[reportMissingImports]

from driftcal.shared.geo import METRES_PER_DEGREE
from driftcal.shared.store.reader import ShardStore
from driftcal.train.learners.drift import pastax_engine
from driftcal.train.learners.drift.engines import simulate
from driftcal.train.learners.drift.simulate import Plan
from driftcal.train.learners.drift.smagorinsky import Smagorinsky
from driftcal.train.reading.batches import Batch, Grid, load
from driftcal.train.settings import Engine, Scheme

STEP, DAY = 1800, 86_400


class Tutorial(eqx.Module):
    """The dynamics of pastax's tutorial: kappa of the nearest node at the nearest level, and none of grad kappa."""

    cs: float
    lon_step: float
    lat_step: float

    def __call__(
        self,
        t: jax.Array,
        y: jax.Array,
        args: pastax_engine.Forcing,
        ctrl: jax.Array,  # noqa: ARG002 - pastax gives it
    ) -> tuple:
        """Drift and diffusion [degrees/s, degrees s^-1/2]."""
        patches = args.currents.neighborhood(t, y[0], y[1], t_window=0, lat_window=1, lon_window=1)
        u, v = patches["u"][0], patches["v"][0]
        dy = METRES_PER_DEGREE * self.lat_step
        dx = METRES_PER_DEGREE * self.lon_step * jnp.cos(jnp.radians(y[1]))
        u_x, v_x = ((f[1, 2] - f[1, 0]) / (2 * dx) for f in (u, v))
        u_y, v_y = ((f[2, 1] - f[0, 1]) / (2 * dy) for f in (u, v))
        kappa = dx * dy * pastax.safe_sqrt(u_x**2 + v_y**2 + 0.5 * (u_y + v_x) ** 2)
        sigma = pastax.safe_sqrt(2 * self.cs * kappa)
        drift = args.currents.velocity_interp(t, y[0], y[1])
        return pastax.meters_to_degrees(drift, y[1]), pastax.meters_to_degrees(jnp.stack([sigma, sigma]), y[1])


def by_engine(batch: Batch, plan: Plan, noise: np.ndarray, cs: float) -> np.ndarray:
    """Last positions `(2, S, B)` [cells] with increments `(step, 2, S, B)`."""
    dtype = batch.latitude.dtype

    @jax.jit
    def last(log_cs: jax.Array, batch: Batch, z: jax.Array) -> jax.Array:
        run = simulate(Smagorinsky.of_log(log_cs), batch, plan, noise.shape[2], lambda n: z[n], keep_positions=True)
        assert run.positions is not None
        return run.positions[-1]

    return np.asarray(last(jnp.log(jnp.asarray(cs, dtype)), batch, jnp.asarray(noise, dtype)), np.float64)


def by_tutorial(batch: Batch, grid: Grid, noise: np.ndarray, cs: float) -> np.ndarray:
    """The same by the dynamics of pastax's tutorial, members held at the edge as elsewhere."""
    steps = jnp.array([grid.lon_step, grid.lat_step])

    def one(sample: tuple) -> jax.Array:
        currents, latitude, cell, start, phase, z = sample
        corner = jnp.stack([jnp.zeros_like(latitude), latitude])
        most = corner + steps * jnp.array([grid.n_lon - 1, grid.n_lat - 1])
        begin = pastax_engine.Member(corner + (start + cell) * steps, jnp.asarray(True))
        forcing = pastax_engine.forcing_of(currents, latitude, grid, grid.time_step)

        def track(controls: jax.Array) -> jax.Array:
            term = Tutorial(cs, grid.lon_step, grid.lat_step)
            solver = pastax_engine.Prescribed(pastax.Heun(), corner, most)
            found = pastax.solve(
                term, begin, phase, len(noise), float(STEP), float(STEP), solver, forcing, controls, adjoint="forward"
            )
            return found.position[-1]

        return (jax.vmap(track)(z) - corner) / steps - cell

    samples = batch.currents, batch.latitude, batch.cell, batch.start, batch.phase
    increments = jnp.asarray(noise).transpose(3, 2, 0, 1)
    return np.asarray(jax.jit(lambda s: jax.lax.map(one, s))((*samples, increments))).transpose(2, 1, 0)


def main() -> int:
    """Entry point; returns the exit code."""
    options = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    options.add_argument("store", type=Path)
    options.add_argument("--samples", type=int, default=32)
    options.add_argument("--members", type=int, default=10)
    options.add_argument("--cs", type=float, default=0.3)
    chosen = options.parse_args()
    store = ShardStore(chosen.store)
    grid = Grid.of(store.layout)
    usable = np.flatnonzero(store.labels["status"] == 0)
    samples = usable[np.linspace(0, len(usable) - 1, chosen.samples).astype(int)]
    n_steps = (grid.n_obs - 1) * grid.obs_step // STEP
    noise = np.random.default_rng(0).normal(size=(n_steps, 2, chosen.members, len(samples)))

    def at(engine: Engine, precision: str, every: int, scheme: Scheme = "heun") -> np.ndarray:
        with jax.enable_x64(precision == "float64"):
            batch = Batch(**jax.device_put(load(store, samples, len(samples), np.dtype(precision))))
            return by_engine(batch, Plan(grid, STEP, every, scheme, engine), noise, chosen.cs)

    base, whole = at("driftcal", "float64", STEP), at("driftcal", "float64", STEP, "reference")
    others = {
        "engine=pastax": (at("pastax", "float64", STEP), base),
        "engine=pastax, scheme reference, to driftcal's": (at("pastax", "float64", STEP, "reference"), whole),
        "engine=driftcal, kappa daily": (at("driftcal", "float64", DAY), base),
        "engine=pastax, kappa daily": (at("pastax", "float64", DAY), base),
        "engine=driftcal, float32": (at("driftcal", "float32", STEP), base),
        "engine=pastax, float32": (at("pastax", "float32", STEP), base),
        "scheme reference (the whole of grad K)": (whole, base),
    }
    with jax.enable_x64(True):
        batch = Batch(**jax.device_put(load(store, samples, len(samples), np.dtype("float64"))))
        others["pastax's tutorial, its constant C_s / sqrt(2)"] = by_tutorial(batch, grid, noise, chosen.cs), base
    row = np.asarray(batch.cell)[:, 1] + base[1]
    metres = METRES_PER_DEGREE * np.stack(
        [grid.lon_step * np.cos(np.radians(np.asarray(batch.latitude) + row * grid.lat_step)),
         np.full(row.shape, grid.lat_step)]
    )  # fmt: skip

    def rms(cells: np.ndarray) -> float:
        return float(np.sqrt(((cells * metres) ** 2).sum(axis=0).mean()))

    print(f"{len(samples)} samples, {chosen.members} members, C_s = {chosen.cs:g}")
    print(f"spread about the ensembles' means: {rms(base - base.mean(axis=1, keepdims=True)):.4g} m")
    for name, (found, reference) in others.items():
        print(f"{name}: {rms(found - reference):.3g} m")
    return 0


if __name__ == "__main__":
    sys.exit(main())
