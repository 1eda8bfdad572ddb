"""The funnel from fixes to samples: how many pass each stage, and how many are lost there, by reason."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from driftcal.preprocess.drift import segments, windows
from driftcal.preprocess.drift.candidates import Survey
from driftcal.shared.store.manifest import Stage

POLEWARD = "poleward of window.max_latitude"
AGROUND = "aground for a day or more"
DUPLICATE = "the same drifter and start twice"
OUTSIDE_DATES = "outside the manifest's period"

REASONS = (*windows.REASONS, POLEWARD, AGROUND, DUPLICATE, OUTSIDE_DATES)
"""Reasons for which a segment is no sample, by code; 0: it is one. Segments without a window have `windows`' codes."""

LOST, ON, UNKNOWN = "drogue lost", "drogue on", "drogue unknown"
GAP = "gap between satellite fixes"

_DROGUE = (LOST, ON, UNKNOWN)
_SEGMENT = (AGROUND, DUPLICATE, OUTSIDE_DATES)
_LATER = (*_DROGUE, GAP, *segments.LEFT_OVER)

MANY = 0.5
"""Share of the items entering a stage above which a loss for one reason is warned of."""


@dataclass(frozen=True)
class Loss:
    """The loss for one reason: `lost` of the `of` items that enter `stage`, counted in `unit`, such as segments."""

    stage: str
    unit: str
    reason: str
    lost: int
    of: int


def stages(survey: Survey, reason: np.ndarray) -> tuple[Stage, ...]:
    """The stages up to the windows; `reason` has an index in `REASONS` for every candidate."""
    kept, *others = np.bincount(reason, minlength=len(REASONS)).tolist()
    dropped = Counter(dict(zip(REASONS[1:], others, strict=True)))
    in_segments = survey.kept["gap-free"] - sum(survey.dropped[why] for why in segments.LEFT_OVER)
    whole = len(reason) - sum(dropped[why] for why in _SEGMENT)
    return (
        Stage("fixes", "fixes", survey.kept["fixes"], _only(survey.dropped, exclude=_LATER)),
        Stage("drogued", "fixes", survey.kept["drogued"], _only(survey.dropped, _DROGUE)),
        Stage("gap-free", "fixes", survey.kept["gap-free"], _only(survey.dropped, (GAP,))),
        Stage("in whole segments", "fixes", in_segments, _only(survey.dropped, segments.LEFT_OVER)),
        Stage("segments", "segments", whole, _only(dropped, _SEGMENT)),
        Stage("inside the record", "segments", kept, _only(dropped, exclude=_SEGMENT)),
    )


def _only(counts: Counter, names: tuple[str, ...] = (), exclude: tuple[str, ...] = ()) -> dict[str, int]:
    return {str(k): int(n) for k, n in sorted(counts.items()) if n and (k in names or (not names and k not in exclude))}


def explain(funnel: Sequence[Stage]) -> str:
    """The funnel in one sentence."""
    parts = []
    for stage in funnel:
        why = ", ".join(f"{n} {reason}" for reason, n in stage.dropped.items())
        parts.append(f"{stage.name}: {stage.kept} {stage.unit}" + (f" (dropped: {why})" if why else ""))
    return "; ".join(parts) + "."


def losses(funnel: Sequence[Stage], share: float) -> list[Loss]:
    """Losses for single reasons of more than `share` of the items that enter their stage, in order of the stages."""
    large = []
    for stage in funnel:
        of = stage.kept + sum(stage.dropped.values())
        every = sorted(stage.dropped.items(), key=lambda item: -item[1])
        large += [Loss(stage.name, stage.unit, reason, n, of) for reason, n in every if n > share * of]
    return large
