"""What pastax itself makes of the samples of `tests.pastax_cases`: writes `tests/data/pastax.json`.

Nothing of this project's simulator, interpolation, diffusivity or score is used, only the conversion of a sample to
pastax's classes: absolute times and longitudes, the Smagorinsky term written from its equation with pastax's own
interpolation and units, increments as controls (pastax's perturbed ordinary differential equation), pastax's metrics,
its fair score and a forward-mode derivative through `pastax.solve`. Needs pastax 0.1:

    pip install '.[pastax]'
    python -m tests.make_pastax_reference

Cases with real data keep the numbers that they have where the files are absent.
"""

import argparse
import contextlib
import io
import json
import os
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pastax

from driftcal.shared.store.reader import ShardStore
from driftcal.train.learners.drift.pastax_engine import Sample, sample_of
from tests import pastax_cases
from tests.pastax_cases import CASES, NUMBERS, OBJECTIVES, STEP, WEIGHT_CS, Case

SOLVER = {"heun": pastax.Heun(), "reference": pastax.Heun(), "euler": pastax.Euler()}
SHARE = {"heun": 0.5, "reference": 1.0, "euler": 1.0}
"""How much of grad K is in the drift (docs/model.md)."""


class Smagorinsky(eqx.Module):
    """A term of pastax: kappa on the whole grid at the very time, then interpolated like the currents."""

    cs: jax.Array
    share: float = eqx.field(static=True)

    def __call__(self, t: jax.Array, y: jax.Array, args: Any, ctrl: jax.Array) -> jax.Array:
        """Velocity [degrees/s] that moves a particle by drift and noise in a step; `ctrl` ~ N(0, 1)."""
        u_field, v_field = args["u"], args["v"]
        land, lat, lon, times = u_field.mask, u_field.lat_coords, u_field.lon_coords, u_field.t_coords
        level = jnp.clip((t - times[0]) // (times[1] - times[0]), 0, len(times) - 2).astype(int)
        share = (t - times[level]) / (times[1] - times[0])
        u, v = ((1 - share) * f.values[level] + share * f.values[level + 1] for f in (u_field, v_field))
        cell = jnp.stack([lon[1] - lon[0], lat[1] - lat[0]])
        metres = jax.vmap(lambda at: pastax.degrees_to_meters(cell, at))(lat)
        dx, dy = metres[:, :1], metres[:, 1:]

        def slope(f: jax.Array, axis: int) -> jax.Array:
            n = f.shape[axis]
            place = jnp.arange(n).reshape((-1, 1) if axis == 0 else (1, -1))
            ahead = ~jnp.roll(land, -1, axis) & (place < n - 1)
            behind = ~jnp.roll(land, 1, axis) & (place > 0)
            forward, backward = jnp.roll(f, -1, axis) - f, f - jnp.roll(f, 1, axis)
            sides = ahead.astype(f.dtype) + behind
            return pastax.safe_divide(jnp.where(ahead, forward, 0.0) + jnp.where(behind, backward, 0.0), sides)

        shear = slope(u, 0) / dy + slope(v, 1) / dx
        kappa = dx * dy * pastax.safe_sqrt((slope(u, 1) / dx) ** 2 + (slope(v, 0) / dy) ** 2 + 0.5 * shear**2)
        here = [
            pastax.bilinear_interp_2d(jnp.where(land, 0.0, f), lat, lon, y[1], y[0], mask=land)
            for f in (kappa, slope(kappa, 1) / dx, slope(kappa, 0) / dy)
        ]
        drift = args.velocity_interp(t, y[0], y[1]) + self.share * self.cs * jnp.stack(here[1:])
        noise = pastax.safe_sqrt(2 * self.cs * here[0]) * ctrl / np.sqrt(STEP)
        return pastax.meters_to_degrees(drift + noise, y[1])


def tracks(sample: Sample, cs: jax.Array, scheme: str, noise: np.ndarray, n_sub: int) -> jax.Array:
    """Positions `(member, fix, 2)` [lon, lat] with increments `(step, 2, member)`."""

    def one(controls: jax.Array) -> jax.Array:
        every = pastax.solve(
            Smagorinsky.of_log(cs, SHARE[scheme]),
            sample.y0,
            sample.t0,
            n_save=len(noise),
            int_dt=float(STEP),
            save_dt=float(STEP),
            solver=SOLVER[scheme],
            args=sample.dataset,
            controls=controls,
            adjoint="forward",
        )
        axes = sample.dataset["u"]
        low, high = (jnp.stack([axes.lon_coords[k], axes.lat_coords[k]]) for k in (0, -1))
        # pastax goes on outside its grid; such a track would not be one that can be compared
        return jnp.where(((every >= low) & (every <= high)).all(), every[::n_sub], jnp.nan)

    return jax.vmap(one)(jnp.asarray(noise).transpose(2, 0, 1))


def objectives(members: jax.Array, weights: jax.Array, seen: jax.Array) -> jax.Array:
    """The four objectives (docs/model.md) of an ensemble about the track `seen`, in the order of `OBJECTIVES`."""
    distance = pastax.separation_distance
    fair = pastax.energy_score(members, seen, kernel=distance)[1:]
    spread = 2 * (distance(weights, seen).mean(0) - pastax.energy_score(weights, seen, kernel=distance))[1:]
    per_path = jnp.cumsum(jnp.cumsum(pastax.haversine(seen[1:], seen[:-1])))
    liu = pastax.energy_score(members, seen, kernel=pastax.liu_index)[1:]
    return jnp.stack(
        [
            (jnp.where(spread > 1.0, fair / jnp.maximum(spread, 1.0), 0.0)).mean(),
            fair.mean(),
            (jnp.cumsum(fair) / per_path).mean(),
            (liu**2).sum(),
        ]
    )


def numbers(case: Case, store: ShardStore) -> dict[str, Any]:
    """What pastax makes of a case."""
    layout = store.layout
    n_sub = layout.obs_step // STEP
    noise, weights_noise = case.noise(store)
    keep = pastax_cases.kept(layout.n_obs)
    found: dict[str, Any] = {"inputs": pastax_cases.digest(store, case.samples), "fixes": keep, "schemes": {}}
    for scheme in case.schemes:
        positions, scores, gradients = [], [], []
        for b, number in enumerate(case.samples):
            sample = sample_of(store, number)
            weights = tracks(sample, jnp.asarray(WEIGHT_CS), scheme, weights_noise[..., b], n_sub)

            @jax.jit
            def loss(
                log_cs: jax.Array, sample: Sample = sample, weights: jax.Array = weights, z=noise[..., b], scheme=scheme
            ) -> tuple[jax.Array, jax.Array]:
                members = tracks(sample, jnp.exp(log_cs), scheme, z, n_sub)
                return objectives(members, weights, sample.track), members

            at = jnp.log(jnp.asarray(case.cs))
            score, gradient, members = jax.jvp(loss, (at,), (jnp.ones_like(at),), has_aux=True)
            # the members too: pastax's safe square root takes a NaN for a distance of 0
            if not all(np.isfinite(found).all() for found in (weights, members, score, gradient)):
                raise SystemExit(f"sample {number}, {scheme}: a member leaves its window, or a score is not finite")
            positions.append(np.round(np.asarray(members)[:, keep], 11).tolist())
            scores.append(np.asarray(score).tolist())
            gradients.append(np.asarray(gradient).tolist())
        found["schemes"][scheme] = {
            "positions": positions,
            "scores": dict(zip(OBJECTIVES, np.array(scores).T.tolist(), strict=True)),
            "gradients": dict(zip(OBJECTIVES, np.array(gradients).T.tolist(), strict=True)),
        }
    return found


def main() -> int:
    """Entry point; returns the exit code."""
    options = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    options.add_argument("--real-data", type=Path, default=os.environ.get("DRIFT_REAL_DATA"))
    chosen = options.parse_args()
    real = Path(chosen.real_data or Path(__file__).parents[2] / "shared" / "data")
    cases = json.loads(NUMBERS.read_text())["cases"] if NUMBERS.exists() else {}
    with jax.enable_x64(True):
        for name, case in CASES.items():
            if case.real and not real.is_dir():
                print(f"{name}: kept as it was, as there is no real data at {real}")
                continue
            with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
                cases[name] = numbers(case, case.build(Path(folder), real))
            print(f"{name}: made")
    NUMBERS.parent.mkdir(exist_ok=True)
    NUMBERS.write_text(json.dumps({"pastax": version("pastax"), "cases": cases}, indent=None) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
