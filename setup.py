"""Packages of the wheel: everything is installed under `driftcal`, whose parts lie side by side in the repository."""

from setuptools import find_packages, setup

PARTS = ("preprocess", "train", "shared")
FACE = "shared.library"
"""The package that is installed as `driftcal` itself."""

inside = [part + ("." + name if name else "") for part in PARTS for name in ("", *find_packages(part))]

setup(
    packages=["driftcal", *(f"driftcal.{name}" for name in inside if name != FACE)],
    package_dir={"driftcal": FACE.replace(".", "/"), **{f"driftcal.{part}": part for part in PARTS}},
)
