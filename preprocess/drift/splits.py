"""Splits: the assignment of drifters to training, validation and test."""

import hashlib

import numpy as np
from jaxtyping import Int, Int8

from driftcal.preprocess.recipe import Recipe
from driftcal.shared.errors import ConfigError
from driftcal.shared.store.schema import SPLITS


def of_drifters(recipe: Recipe, drifters: list[str]) -> Int8[np.ndarray, " drifters"]:
    """Split of every drifter, an index in `schema.SPLITS`, int8: by a hash of its name, never by row.

    A drifter keeps its split when others are added. Only the fractions and the seed decide.
    """
    edges = np.cumsum([getattr(recipe.split, name) for name in SPLITS])
    uniform = [
        int.from_bytes(hashlib.sha256(f"{recipe.split.seed}\0{name}".encode()).digest()[:7], "big") / 2**56
        for name in drifters
    ]
    # fractions of 0 have an empty interval; the last edge is 1 up to rounding
    edges[np.flatnonzero([getattr(recipe.split, name) for name in SPLITS])[-1] :] = 1.0
    return np.searchsorted(edges, uniform, side="right").astype(np.int8)


def check(recipe: Recipe, split: Int8[np.ndarray, " n"], drifter: Int[np.ndarray, " n"], before: str) -> None:
    """Refuses a split that was asked for and has no sample.

    Args:
        recipe: The fractions asked for.
        split: Split of each sample, `(n,)`.
        drifter: Drifter of each sample, `(n,)`.
        before: Explanation of earlier losses, for the message.

    Raises:
        ConfigError: there is one.
    """
    asked = [name for name in SPLITS if getattr(recipe.split, name)]
    empty = [name for name in asked if not (split == SPLITS.index(name)).any()]
    if empty:
        fractions = ", ".join(f"{name}: {getattr(recipe.split, name):g}" for name in SPLITS)
        raise ConfigError(
            f"split {{{fractions}}} leaves {' and '.join(empty)} empty: the samples come from "
            f"{len(np.unique(drifter))} drifters. Give the whole to the others (such as --set split.train=1 "
            f"--set split.validation=0 --set split.test=0), try another split.seed, or use more drifters. How they "
            f"became so few: {before}"
        )
