"""The truth of a twin experiment, as the recipe in a store's manifest states it."""

from collections.abc import Mapping
from typing import Any

from driftcal.shared.errors import StoreError

PARTS = ("truth", "currents_error", "release")
"""Sections of `synthetic` that say what the calibration is not told."""


def truth(recipe: Mapping[str, Any]) -> dict[str, dict[str, Any]] | None:
    """The truth in the JSON of a `recipe`, and what else is not the model's; None if its drifters were not simulated.

    Returns:
        `truth`, of which `cs` is the constant C_s, and where they are in the recipe `currents_error` and `release`.

    Raises:
        StoreError: the recipe's section `synthetic` is damaged.
    """
    section = recipe.get("synthetic")
    if section is None:
        return None
    try:
        law = section["truth"] if "truth" in section else {"cs": section["cs"]}
        stated = {**{part: section[part] for part in PARTS if part in section}, "truth": law}
        if not all(isinstance(part, dict) for part in stated.values()):
            raise TypeError("a part is no mapping")
        float(law["cs"])
    except (KeyError, TypeError, ValueError) as error:
        raise StoreError(f"the recipe's synthetic is {section!r}: damaged. Make the store again.") from error
    return stated


def constant(recipe: Mapping[str, Any]) -> float | None:
    """The constant C_s that made the drifters; None if they were not simulated, or without Smagorinsky diffusion."""
    stated = truth(recipe)
    return None if stated is None else float(stated["truth"]["cs"]) or None
