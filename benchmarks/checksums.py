"""Time of crc32c by the libraries that compute it, in one interleaved run on one core.

    python -m benchmarks.checksums [--rounds N]

Chunks of 30 kB and 100 kB, about those of the usual windows with lz4 and uncompressed; and the size of both
installations.
"""

import argparse
from collections.abc import Callable
from importlib.metadata import files, version
from pathlib import Path
from typing import Any

from benchmarks.measure import interleave, machine, on_one_core

ONE_CORE = on_one_core()

import google_crc32c  # noqa: E402
import numpy as np  # noqa: E402
from awscrt import checksums  # noqa: E402

LIBRARIES: dict[str, Callable[[Any], int]] = {"awscrt": checksums.crc32c, "google-crc32c": google_crc32c.value}
SIZES = (30_000, 100_000)
CALLS = 500
"""Checksums a round."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.checksums", description=str(__doc__).partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=41, help="of the comparison (default: %(default)s)")
    options = parser.parse_args()
    random = np.random.default_rng(0)
    print("| library | bytes | µs a chunk | ratio |\n|---|---|---|---|")
    for size in SIZES:
        chunk = random.integers(0, 256, size, dtype=np.uint8)
        if len({take(chunk) for take in LIBRARIES.values()}) != 1:
            raise SystemExit(f"the libraries disagree on the checksum of {size} bytes")
        for name, timing in interleave(
            {name: (repeated(take, chunk), CALLS) for name, take in LIBRARIES.items()}, options.rounds
        ).items():
            print(f"| {name} | {size:,} | {1e3 * timing.cpu_ms:.2f} | {timing.ratio:.2f} |")
    for name in LIBRARIES:
        print(f"{name} {version(name)}: {installed(name) / 1e6:.1f} MB installed")
    print(f"{machine()}; {'one core' if ONE_CORE else 'all cores'}; medians of {options.rounds} rounds")


def repeated(take: Callable[[Any], int], chunk: np.ndarray) -> Callable[[], None]:
    def run() -> None:
        for _ in range(CALLS):
            take(chunk)

    return run


def installed(name: str) -> int:
    """Bytes of the files that belong to the distribution `name`."""
    paths = [Path(str(file.locate())) for file in files(name) or ()]
    return sum(path.stat().st_size for path in paths if path.exists())


if __name__ == "__main__":
    main()
