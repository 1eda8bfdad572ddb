"""Checks of environment variables whose values JAX would refuse, with an error that names them.

JAX reads its variables when it is imported, and refuses a bad one with a traceback; XLA ends the process at a bad flag
when the first device is requested. So this module loads no jax. Errors of a device itself are reported by
`machine.devices`, and modes for code under test are handled by `machine.modes`.
"""

import os
import re
import subprocess
import sys

from driftcal.shared.errors import ConfigError

HARMLESS = re.compile(r"(--xla_force_host_platform_device_count=\d+\s*)*")
"""XLA_FLAGS that need no trial."""

PATIENCE = 120
"""Longest trial of XLA_FLAGS [s]."""


def drop_empty() -> None:
    """Takes variables of JAX's that are empty out of the environment: JAX takes some of them for values."""
    for name in [name for name, value in os.environ.items() if name.startswith("JAX_") and not value.strip()]:
        del os.environ[name]


def refusal(error: Exception) -> ConfigError:
    """The error when JAX refuses, by `error`, to be imported because of one of its own variables."""
    text = " ".join(str(error).split())
    name = next((name for name in sorted(os.environ) if name.startswith("JAX_") and name.lower() in text.lower()), None)
    if name is None:
        return ConfigError(
            f"JAX cannot be imported ({type(error).__name__}: {text}). Install it again: pip install jax."
        )
    return ConfigError(
        f"{name}={os.environ[name]!r} in the environment is no value that JAX takes ({text}). Set another, or unset "
        f"{name}."
    )


def check_flags() -> None:
    """Refuses XLA_FLAGS that would end the process: tried in another one first.

    Raises:
        ConfigError: it ends there.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    if HARMLESS.fullmatch(flags.strip()):
        return
    trial, alone = [sys.executable, "-c", "import jax; jax.devices()"], {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    try:
        done = subprocess.run(
            trial,
            env=os.environ | alone,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=PATIENCE,
            check=False,
        )
    except (subprocess.TimeoutExpired, OSError):
        return  # says nothing of the flags
    said = [line.partition("] ")[2] for line in done.stderr.splitlines() if "XLA_FLAGS" in line]
    if done.returncode and said:
        raise ConfigError(
            f"XLA_FLAGS={flags!r} in the environment is not what XLA takes ({said[0]}). Correct it, or unset XLA_FLAGS."
        )
