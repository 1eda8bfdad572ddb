"""Takes the fingerprint of a term (`user_dynamics.fingerprint`): its program, its values, its start.

The traced functions are those that a run computes with: drift and diffusion, and their derivatives with respect to
all inputs. Values are taken on the CPU if JAX has one, in full precision, so that they hardly depend on the device.
"""

import contextlib
import hashlib
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from driftcal.shared.store.reader import ShardStore
from driftcal.train.fit.parameters import Leaf, rebuilder, trained_leaves, vector_of
from driftcal.train.learners.drift.smagorinsky import Flow
from driftcal.train.learners.drift.user_dynamics import other_time
from driftcal.train.learners.drift.user_dynamics.fingerprint import VERSIONS, Fingerprint
from driftcal.train.learners.drift.user_dynamics.program import described, program
from driftcal.train.learners.drift.user_dynamics.terms import term_of

FLOWS = (
    (0.31, -0.24, 520.0, 2.1e-3, -1.2e-3),
    (-0.07, 0.52, 35.0, -4.0e-4, 7.0e-4),
    (1.43, 0.88, 2400.0, -9.0e-3, 5.0e-3),
    (0.02, 0.013, 4.0, 3.0e-5, 6.0e-5),
    (-0.66, -1.07, 1100.0, 6.0e-3, 8.0e-3),
)
"""Values of u, v [m/s], kappa [m2/s], its gradient [m/s] at which a term is evaluated, one after the other."""

LONGEST = 4.7 * 86_400
"""The points' times are spread up to this [s]."""

N_POINTS = 10

MOVED = 0.13
"""Offset from its start at which a term is also evaluated, in the coordinates in which parameters are trained."""

FEW = 10
"""A trained array of so many numbers is remembered with all of them."""

Points = list[list[float]]
"""t [s], longitude, latitude [degrees], u, v, kappa, kappa_x, kappa_y of each."""


def points_of(store: ShardStore, samples: np.ndarray) -> Points:
    """Points at starts of `samples`, spread evenly, in flows of all kinds."""
    chosen = samples[np.linspace(0, len(samples) - 1, N_POINTS).astype(int)]
    times = LONGEST * np.arange(N_POINTS) / N_POINTS
    rows = [
        (t, *lonlat, *FLOWS[k % len(FLOWS)])
        for k, (t, lonlat) in enumerate(zip(times, store.labels["origin"][chosen], strict=True))
    ]
    return [[float(np.float32(number)) for number in row] for row in rows]


def fingerprint(spec: str, module: eqx.Module, points: Points) -> Fingerprint:
    """The fingerprint of the term `module`, which `spec` names, looked at in `points`."""
    dtype = vector_of(module).dtype
    leaves = trained_leaves(module)
    return {
        "dynamics": spec,
        "precision": str(dtype),
        **traced(module),
        "points": points,
        "values": [[[_number(v) for v in row] for row in one] for one in values(module, points)],
        "start": [_start(leaf) for leaf in leaves],
        "sources": _digests(users_modules(_module_of(module))),
        "made_with": {
            **{name: version(name) for name in VERSIONS},
            "processor": " ".join([jax.default_backend(), f"numpy-{np.__version__}", *_simd()]),
        },
    }


def traced(module: eqx.Module, later: bool = False) -> dict[str, Any]:
    """Traces the term and its derivatives: `program`, `numbers` and `arrays` of a fingerprint.

    It is traced afresh: no trace from before is taken for it. `later` it is another time of day for the user's code.
    """
    rebuild, vector = rebuilder(module), vector_of(module)
    flow = jnp.zeros(8, vector.dtype)

    def slopes(*given: Any) -> Any:
        ashore, primals, tangents = given[0], given[1:3], given[3:]
        return jax.jvp(lambda v, at: _outputs(rebuild, v, at, ashore), primals, tangents)

    jax.clear_caches()
    with other_time.later(users_modules(_module_of(module))) if later else contextlib.nullcontext():
        found = program(slopes, jnp.asarray(False), vector, flow, vector, flow)
    return {"program": found.digest, "numbers": found.numbers, "arrays": found.arrays}


def values(module: eqx.Module, points: Points) -> Float[np.ndarray, "2 n 4"]:
    """Drift and diffusion (east, north) in `points`, with the parameters of the start and with others."""
    rebuild, vector = rebuilder(module), vector_of(module)
    with _on_the_processor(), jax.default_matmul_precision("highest"):
        at = jnp.asarray(np.array(points), vector.dtype)
        off = vector + jnp.asarray(MOVED * np.cos(1.0 + np.arange(vector.size)), vector.dtype)
        each = jax.jit(jax.vmap(lambda v, row: _outputs(rebuild, v, row, jnp.asarray(False)), (None, 0)))
        return np.stack([np.asarray(each(v, at), np.float64) for v in (vector, off)])


def _outputs(rebuild: Callable[[Array], eqx.Module], vector: Array, at: Array, ashore: Array) -> Float[Array, "4"]:
    term = term_of(rebuild(vector))
    drift, diffusion = term(at[0], at[1:3], Flow(at[3], at[4], at[5], at[6], at[7], ashore))
    return jnp.concatenate([jnp.asarray(drift, at.dtype), jnp.broadcast_to(jnp.asarray(diffusion, at.dtype), (2,))])


def _on_the_processor() -> AbstractContextManager[Any]:
    try:
        return jax.default_device(jax.local_devices(backend="cpu")[0])
    except RuntimeError:  # JAX_PLATFORMS leaves it out
        return contextlib.nullcontext()


def _number(value: float) -> float | str:
    """The value for JSON, which has no infinity."""
    return float(value) if np.isfinite(value) else str(value)


def _start(leaf: Leaf) -> dict[str, Any]:
    whole = described(leaf.values)
    numbers = leaf.values.ravel() if leaf.values.size <= FEW else [*whole["sketch"], *leaf.values.ravel()[:FEW]]
    return {
        "name": leaf.path,
        "shape": whole["shape"],
        "sha256": whole["sha256"],
        "numbers": [float(number) for number in numbers],
    }


def _module_of(module: eqx.Module) -> ModuleType:
    return sys.modules[type(module).__module__]


def users_modules(module: ModuleType) -> list[ModuleType]:
    """Lists `module` and the modules that it uses, except those of installed packages."""
    found, waiting = {}, [module]
    while waiting:
        one = waiting.pop()
        path = getattr(one, "__file__", None)
        if one.__name__ in found or path is None or not _is_users(one.__name__, Path(path)):
            continue
        found[one.__name__] = one
        for value in list(vars(one).values()):
            name = value.__name__ if isinstance(value, ModuleType) else getattr(value, "__module__", None)
            if isinstance(name, str) and name in sys.modules:
                waiting.append(sys.modules[name])
    return list(found.values())


def _digests(modules: list[ModuleType]) -> dict[str, str]:
    """sha256 of the files of `modules`."""
    found = {}
    for module in modules:
        with contextlib.suppress(OSError):  # gone since it was imported; the values tell whether it mattered
            found[module.__name__] = hashlib.sha256(Path(str(module.__file__)).read_bytes()).hexdigest()
    return found


def _is_users(name: str, path: Path) -> bool:
    package = name.partition(".")[0]
    ours_or_standard = package in sys.stdlib_module_names or package in ("driftcal", "__main__")
    return not ours_or_standard and not {"site-packages", "dist-packages"} & set(path.parts)


def _simd() -> list[str]:
    """Instruction sets that NumPy detects in the processor: its functions round differently with each."""
    shown = np.show_config(mode="dicts")
    return list((shown or {}).get("SIMD Extensions", {}).get("found", []))
