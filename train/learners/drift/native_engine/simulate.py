"""`drift.simulate.simulate` by the C++ kernel: the same arguments, the same noise, the same result within rounding.

The kernel does the built-in dynamics. It tabulates the flow of a window where it uses it, steps eight members at once
with their derivative, and shares a batch's samples between the threads that XLA has; no result depends on how many.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from driftcal.shared.errors import ConfigError
from driftcal.train.learners.drift import simulate as own
from driftcal.train.learners.drift.native_engine.library import register
from driftcal.train.learners.drift.noise import Increments, Noise
from driftcal.train.learners.drift.scoring_rules import Distances
from driftcal.train.learners.drift.simulate import Dynamics, Plan, Simulation
from driftcal.train.learners.drift.smagorinsky import Smagorinsky, Table
from driftcal.train.reading.batches import Batch, Grid
from driftcal.train.settings import Scheme

SCHEMES: dict[Scheme, int] = {"heun": 0, "ito-heun": 1, "euler": 2, "reference": 3}
"""Numbers of the schemes in the kernel."""

N_REAL = 5
"""Results that have a derivative; two flags follow them."""


class Call(NamedTuple):
    """The arguments of a call of the kernel that are static under jit."""

    grid: Grid
    step: int
    kappa_every: int
    scheme: Scheme
    members: int
    own_lengths: bool
    keep_positions: bool

    def shapes(self, n: int, dtype: Any) -> list[jax.ShapeDtypeStruct]:
        """Shapes of the results for `n` samples; those that are not asked for are empty."""
        fixes, members = self.grid.n_obs - 1, self.members
        each, tracks = fixes * self.own_lengths, fixes * self.keep_positions
        real = [(fixes,), (fixes,), (each, members), (each, members), (tracks, 2, members)]
        return [
            *(jax.ShapeDtypeStruct((n, *shape), dtype) for shape in real),
            *(jax.ShapeDtypeStruct((n, members), jnp.bool_) for _ in range(2)),
        ]


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
        dynamics: `drift.smagorinsky.Smagorinsky`; any other, such as an evaluation's baseline without motion, is left
            to `drift.simulate.simulate`.
        batch: B samples.
        plan: the grid and the scheme.
        members: S.
        noise: as `drift.noise.noise_for` makes it.
        own_lengths: whether the distances of the `reference` objective are needed too.
        keep_positions: whether to return the tracks.
        table: not used: the kernel makes its own, a window at a time, where it is read.
        checkpoint: not used: derivatives are in forward mode, with respect to log C_s alone.

    Raises:
        ConfigError: the noise is of another kind, or the kernel cannot be had here.
    """
    if not isinstance(dynamics, Smagorinsky):
        return own.simulate(dynamics, batch, plan, members, noise, own_lengths, keep_positions, table, checkpoint)
    if not isinstance(noise, Increments):
        raise ConfigError(
            "engine=native draws its own increments and was given others. Take them from "
            "driftcal.train.learners.drift.noise.noise_for, or set engine to driftcal."
        )
    register()
    n, dtype = batch.weight.shape[0], batch.latitude.dtype
    call = Call(plan.grid, plan.step, plan.kappa_every, plan.scheme, members, own_lengths, keep_positions)
    log_cs = jnp.broadcast_to(dynamics.cs.log.astype(dtype), (n,))
    keys = jnp.stack(noise.key, axis=-1)
    found = _ensembles(
        call, log_cs, batch.currents, batch.cell, batch.start, batch.track, batch.phase, batch.latitude, keys
    )
    *real, inside, ashore = found
    observed, between, per_member, steps, positions = (jnp.moveaxis(f, 0, -1) for f in real)
    wanted = Distances(observed, between, *((per_member, steps) if own_lengths else (None, None)))
    return Simulation(wanted, inside.T, ashore.T, positions if keep_positions else None)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _ensembles(call: Call, log_cs: Float[Array, " B"], *operands: Array) -> list[Array]:
    return _kernel(call, [*operands, log_cs], call.shapes(len(log_cs), log_cs.dtype))


def _values_and_tangents(call: Call, primals: tuple, tangents: tuple) -> tuple[list, list]:
    log_cs, *operands = primals
    change, *others = tangents
    if not all(isinstance(other, jax.custom_derivatives.SymbolicZero) for other in others):
        raise ConfigError(
            "engine=native is differentiated with respect to C_s alone, not to what is in a batch. Set engine to "
            "driftcal."
        )
    shapes = call.shapes(len(log_cs), log_cs.dtype)
    if isinstance(change, jax.custom_derivatives.SymbolicZero):
        change = jnp.zeros_like(log_cs)
    found = _kernel(call, [*operands, log_cs, change], [*shapes, *shapes[:N_REAL]])
    values, slopes = found[: len(shapes)], found[len(shapes) :]
    return values, [*slopes, *(np.zeros(flag.shape, jax.dtypes.float0) for flag in shapes[N_REAL:])]


_ensembles.defjvp(_values_and_tangents, symbolic_zeros=True)


def _kernel(call: Call, operands: list[Array], shapes: list[jax.ShapeDtypeStruct]) -> list[Array]:
    grid = call.grid
    numbers = [
        call.step,
        call.kappa_every,
        grid.time_step,
        grid.obs_step // call.step,
        SCHEMES[call.scheme],
        call.members,
        call.own_lengths,
        call.keep_positions,
    ]
    run = jax.ffi.ffi_call(register(), shapes, vmap_method="sequential")
    return list(
        run(
            *operands,
            numbers=np.array(numbers, np.int64),
            lat_step=np.float64(grid.lat_step),
            lon_step=np.float64(grid.lon_step),
        )
    )
