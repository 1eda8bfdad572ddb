"""Modes of JAX for code under test, such as strict promotion or guarded transfers.

They would refuse our own computations, or change them. Those always run in JAX's usual modes, whatever the environment
asks for, and so give the same bytes.
"""

import contextlib
import os
from collections.abc import Iterator, Mapping

import jax

from driftcal.shared.command import say

USUAL: Mapping[str, object] = {
    "jax_numpy_dtype_promotion": "standard",
    "jax_numpy_rank_promotion": "allow",
    "jax_transfer_guard": "allow",
    "jax_transfer_guard_host_to_device": "allow",
    "jax_transfer_guard_device_to_device": "allow",
    "jax_transfer_guard_device_to_host": "allow",
    "jax_disable_jit": False,
    "jax_no_tracing": False,
    "jax_check_tracer_leaks": False,
    "jax_enable_checks": False,
    "jax_debug_infs": False,
    "jax_debug_key_reuse": False,
    "jax_legacy_prng_key": "allow",
    "jax_random_seed_offset": 0,
}
"""JAX's modes, by their names in `jax.config`, with the values that our computations run in."""


def set_back() -> None:
    """Resets modes that the environment has changed, and reports which."""
    asked = []
    for name, usual in USUAL.items():
        if os.environ.get(name.upper()) and getattr(jax.config, name, usual) not in (usual, None):
            jax.config.update(name, usual)
            asked.append(f"{name.upper()}={os.environ[name.upper()]}")
    if asked:
        say(f"note: {', '.join(asked)} is for code under test: driftcal computes in JAX's usual mode.")


@contextlib.contextmanager
def kept() -> Iterator[list[str]]:
    """Puts back the modes that are changed inside, and lists them."""
    before = {name: getattr(jax.config, name) for name in USUAL if hasattr(jax.config, name)}
    changed: list[str] = []
    try:
        yield changed
    finally:
        changed += [name for name, value in before.items() if getattr(jax.config, name) != value]
        for name in changed:
            jax.config.update(name, before[name])
