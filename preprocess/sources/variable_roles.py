"""Roles of variables (`lat`, `u`, `id`, ...): the part that `current_roles` and `drifter_roles` share.

Products name the same thing differently and mostly without a `standard_name`, so roles are resolved by a table of
aliases that the manifest's `variables` overrides. A table is a tuple of tiers: the first tier with a match decides,
and two matches inside one tier are an error, because a guess between them would go unnoticed.
"""

from collections.abc import Sequence

Tiers = tuple[tuple[str, ...], ...]
"""Aliases of one role, best tier first."""


def listing(names: Sequence[str], most: int = 20) -> str:
    """`names` for an error message, at most `most` of them."""
    shown = ", ".join(names[:most]) or "no variables"
    return shown + (f", ... ({len(names)} in all)" if len(names) > most else "")
