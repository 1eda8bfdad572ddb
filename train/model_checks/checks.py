"""The checks: what holds of residuals and slopes where the model is right, each with a test and a sentence.

Samples are sorted by what is known without their observed tracks (start, time, the currents alone), and never by where
the drifter was found: that would bias a part even under the right model.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import stats

from driftcal.train.fit.group_tests import score_test
from driftcal.train.model_checks import findings
from driftcal.train.model_checks.model_check import Estimate, ModelCheck, ModelChecks
from driftcal.train.model_checks.moment_tests import LEVEL, Interval, MeanTest, holm, mean_test, ratio_interval

FIRST_HOURS = 6.0
"""Lead time that an error of the observed positions shows in [h]."""

DAY = 24.0

FEWEST = 10
"""Independent drifters below which no model is called supported: so few contradict only what is grossly wrong."""

CORE = ("lead_time", "mean_residual", "memory", "reliability")
"""Checks without which none is called supported."""

FAR_OUT = 2.5
"""Standard deviations beyond which a condition weighs no more."""

CURVED, LONGEST_STEP = 2.0, 2.4
"""Standard errors that a part's curvature must be above zero, and longest step of a logarithm that is told."""

LEAST_PART = 5
"""Clusters that each part of a comparison needs."""


class Moments(NamedTuple):
    """A score's slope, and the derivatives of that, of n samples at every fix but the first.

    Attributes:
        slope: Derivatives of the score with respect to the P parameters as trained.
        curvature: Derivatives of the slope, up to one factor for all.
    """

    slope: Float[np.ndarray, "n obs P"]
    curvature: Float[np.ndarray, "n obs P P"]

    def adjusted(self, weight: Float[np.ndarray, "#n obs"], calibrated: "Moments") -> Float[np.ndarray, "n P"]:
        """Influence of every sample on the weighted mean slope at parameters where `calibrated` has mean slope zero."""
        own = (self.slope * weight[..., None]).mean(axis=1)
        moved = (self.curvature * weight[..., None, None]).mean(axis=(0, 1))
        curvature = calibrated.curvature.mean(axis=(0, 1))
        return own - calibrated.slope.mean(axis=1) @ np.linalg.solve(curvature, moved.T)


class MemberMemory(NamedTuple):
    """Sums over pairs of successive increments of the members' departures from their mean [m2], as of a drifter's.

    Attributes:
        stride: Fixes between the ends of an increment.
        product: Sums of scalar products.
        turning: Sums of vector products: above 0 where tracks turn to the left.
        square: Sums of the squares of all increments.
    """

    stride: int
    product: Float[np.ndarray, " n"]
    turning: Float[np.ndarray, " n"]
    square: Float[np.ndarray, " n"]


@dataclass(frozen=True)
class Parameter:
    """The one positive parameter of a model, for the numbers that the checks compare.

    Attributes:
        symbol: As text calls it.
        log: Its logarithm, as calibrated.
        step: Step of the logarithm towards the minimum, of a mean slope over the mean dispersion or curvature.
    """

    symbol: str
    log: float
    step: Callable[[float], float]


@dataclass(frozen=True)
class Evidence:
    """Residuals of n samples at the calibrated parameters.

    Attributes:
        samples: Their numbers in the store.
        lead_hours: Lead times of the fixes [h].
        cluster: Of every sample.
        drifter: Of every sample.
        objective: Slopes of the score that was minimised; None where it is not proper, or was not differentiated.
        other: Slopes of the other proper score; likewise.
        parameter: The one positive parameter; None where there are others.
        departure: Drifter less ensemble mean, east and north [m].
        error2: Squared length of that [m2].
        spread2: Squared spread of the members [m2].
        rank: Rank of the drifter by its distance to the members, as a share of the places.
        displacement: Displacement by the currents alone, east and north [m].
        daily: Memory of the members, by increments over a day.
        hourly: The same by increments over a few hours.
        successive: The same by increments from fix to fix.
        south: True south of the equator.
        members: Of an ensemble.
        sorted_by: Conditions of the samples by name: one for all fixes, or one for each.
        groups: Group of every sample, by what makes the groups.
        names: Objective and other score.
    """

    samples: Int[np.ndarray, " n"]
    lead_hours: Float[np.ndarray, " obs"]
    cluster: Int[np.ndarray, " n"]
    drifter: Int[np.ndarray, " n"]
    objective: Moments | None
    other: Moments | None
    parameter: Parameter | None
    departure: Float[np.ndarray, "n obs 2"]
    error2: Float[np.ndarray, "n obs"]
    spread2: Float[np.ndarray, "n obs"]
    rank: Float[np.ndarray, "n obs"]
    displacement: Float[np.ndarray, "n 2"]
    daily: MemberMemory
    hourly: MemberMemory
    successive: MemberMemory
    south: Bool[np.ndarray, " n"]
    members: int
    sorted_by: Mapping[str, Float[np.ndarray, "n _"]]
    groups: Mapping[str, Int[np.ndarray, " n"]]
    names: tuple[str, str]

    @property
    def n_clusters(self) -> int:
        """Number of clusters."""
        return len(np.unique(self.cluster))

    @property
    def n_independent(self) -> float:
        """Independent drifters that weigh as much: clusters that weigh alike, and no more than there are drifters."""
        size = np.unique(self.cluster, return_counts=True)[1].astype(np.float64)
        return min(float(size.sum() ** 2 / (size**2).sum()), float(len(np.unique(self.drifter))))

    def fewest_in(self, part: Bool[np.ndarray, " n"]) -> int:
        """Clusters among the samples of `part`, a mask."""
        return len(np.unique(self.cluster[part]))


class Made(NamedTuple):
    """A check before it is adjusted for the others."""

    name: str
    question: str
    test: MeanTest
    quantity: str
    estimates: tuple[Estimate, ...]
    finding: str


def model_checks(evidence: Evidence) -> ModelChecks:
    """All checks that the samples allow, adjusted for one another."""
    made = [check for make in CHECKS for check in make(evidence)]
    adjusted = holm(np.array([one.test.p_value for one in made]))
    checks = {
        one.name: ModelCheck(
            question=one.question,
            statistic=one.test.statistic,
            p_value=one.test.p_value,
            p_adjusted=float(p),
            rejected=bool(p < LEVEL),
            finding=one.finding if p < LEVEL else findings.NOTHING,
            quantity=one.quantity,
            estimates=one.estimates,
        )
        for one, p in zip(made, adjusted, strict=True)
    }
    missing = [name for name in CORE if name not in checks]
    enough = evidence.n_independent >= FEWEST and not missing
    supported = False if any(check.rejected for check in checks.values()) else True if enough else None
    verdict = findings.verdict(supported, checks, evidence.n_independent, FEWEST, missing)
    return ModelChecks(supported, verdict, checks)


def _by_lead_time(evidence: Evidence) -> Iterator[Made]:
    """The parameters fitted to early and to late fixes alone agree."""
    moments, hours = evidence.objective, evidence.lead_hours
    if moments is None:
        return
    early, late = hours <= hours[-1] / 4, hours > 3 * hours[-1] / 4
    if not early.any():
        return
    both = [moments.adjusted(part[None].astype(float), moments) for part in (early, late)]
    if (test := mean_test(np.hstack(both), evidence.cluster)) is None:
        return
    estimates, quantity, finding = (), "", findings.LEAD_TIME_OF_SEVERAL
    if evidence.parameter is not None:
        estimates = _told(_parameter(evidence, part[None], name) for name, part in lead_parts(hours))
        quantity = evidence.parameter.symbol
        first, last = (_parameter(evidence, part[None], "") for part in (early, late))
        if first is not None and last is not None:
            all_of_it = float(np.exp(evidence.parameter.log))
            finding = findings.lead_time(quantity, first.value, last.value, all_of_it, hours[early][-1], hours[-1])
    yield Made("lead_time", findings.QUESTIONS["lead_time"], test, quantity, estimates, finding)


def _first_hours(evidence: Evidence) -> Iterator[Made]:
    """The parameters fitted to the first hours alone agree with those of all."""
    moments, first = evidence.objective, evidence.lead_hours <= FIRST_HOURS
    if moments is None or not first.any() or first.sum() > len(first) / 4:
        return
    if (test := mean_test(moments.adjusted(first[None].astype(float), moments), evidence.cluster)) is None:
        return
    estimates, quantity, finding = (), "", findings.FIRST_HOURS_OF_SEVERAL
    if evidence.parameter is not None:
        parts = (f"first {FIRST_HOURS:g} h", first), ("later", ~first)
        estimates = _told(_parameter(evidence, part[None], name) for name, part in parts)
        quantity = evidence.parameter.symbol
        if len(estimates) == 2:
            finding = findings.first_hours(quantity, estimates[0].value, estimates[1].value)
    yield Made("first_hours", findings.QUESTIONS["first_hours"], test, quantity, estimates, finding)


def _by_condition(evidence: Evidence) -> Iterator[Made]:
    """The parameters do not change with a condition: no slope is left along it."""
    moments = evidence.objective
    if moments is None:
        return
    for name, values in evidence.sorted_by.items():
        # of several fixes a sample has several values, which are compared with other samples' at the same lead time
        ranks = np.apply_along_axis(stats.rankdata, 0, values)
        thirds = np.apply_along_axis(thirds_of, 0, ranks)
        parts = [thirds == k for k in range(3)]
        if min(evidence.fewest_in(part.any(axis=1)) for part in parts) < LEAST_PART:
            continue
        ones = np.ones((1, len(evidence.lead_hours)))
        if (test := mean_test(moments.adjusted(_contrast(values) * ones, moments), evidence.cluster)) is None:
            continue
        estimates, quantity, finding = (), "", findings.condition_of_several(name)
        if evidence.parameter is not None:
            labels = ("lowest third", "middle third", "highest third")
            found = zip(labels, parts, strict=True)
            estimates = _told(_parameter(evidence, part * ones, label) for label, part in found)
            quantity = evidence.parameter.symbol
            if len(estimates) == len(labels):
                finding = findings.condition(name, quantity, estimates[0].value, estimates[2].value)
        yield Made(name, findings.QUESTIONS[name], test, quantity, estimates, finding)


def _contrast(values: Float[np.ndarray, "n leads"]) -> Float[np.ndarray, "n leads"]:
    """A condition about its mean at every lead time, in standard deviations, those far out brought in."""
    apart = values - values.mean(axis=0)
    spread = apart.std()
    return np.clip(apart / (spread if spread > 0 else 1.0), -FAR_OUT, FAR_OUT)


def _by_group(evidence: Evidence) -> Iterator[Made]:
    """One constant fits all boxes, bands and seasons."""
    moments = evidence.objective
    if moments is None or evidence.parameter is None:
        return
    slope, scale = moments.slope[..., 0].mean(axis=1), moments.curvature[..., 0, 0].mean(axis=1)
    for name, group in evidence.groups.items():
        test = score_test(slope, scale, group, evidence.cluster)
        if test is not None:
            finding = findings.groups(name, evidence.parameter.symbol, test.n_groups)
            made = MeanTest(test.statistic, test.p_value, np.empty(0))
            yield Made(name, findings.QUESTIONS[name], made, "", (), finding)


def _mean_residual(evidence: Evidence) -> Iterator[Made]:
    """The drifters' mean departure from the ensemble's mean is zero, in space and along the currents."""
    seconds = 3600 * evidence.lead_hours[-1]
    velocity = evidence.departure[:, -1] / seconds
    length = np.maximum(np.linalg.norm(evidence.displacement, axis=1, keepdims=True), 1.0)
    along = evidence.displacement / length
    turned = np.stack([(velocity * along).sum(axis=1), along[:, 0] * velocity[:, 1] - along[:, 1] * velocity[:, 0]], 1)
    for name, values, axes in (
        ("mean_residual", velocity, ("east", "north")),
        ("along_current", turned, ("along", "to the left")),
    ):
        if (test := mean_test(values, evidence.cluster)) is None:
            continue
        ones = np.ones(len(values))
        estimates = tuple(
            _estimate(axis, 100 * values[:, k], ones, evidence.cluster, 0.0) for k, axis in enumerate(axes)
        )
        finding = findings.residual(name, estimates[0].value, estimates[1].value)
        yield Made(name, findings.QUESTIONS[name], test, "mean residual velocity [cm/s]", estimates, finding)


def _objectives(evidence: Evidence) -> Iterator[Made]:
    """Both proper scores are least at the same parameters."""
    moments, other = evidence.objective, evidence.other
    if moments is None or other is None:
        return
    ones = np.ones((1, len(evidence.lead_hours)))
    if (test := mean_test(other.adjusted(ones, moments), evidence.cluster)) is None:
        return
    estimates, quantity, finding = (), "", findings.OBJECTIVES_OF_SEVERAL
    if evidence.parameter is not None:
        pairs = zip(evidence.names, (moments, other), strict=True)
        estimates = _told(_parameter(evidence, ones, name, score) for name, score in pairs)
        quantity = evidence.parameter.symbol
        found = {one.name: one.value for one in estimates}
        if len(found) == len(evidence.names):
            finding = findings.objectives(quantity, found["energy"], found["energy-plain"])
    yield Made("objectives", findings.QUESTIONS["objectives"], test, quantity, estimates, finding)


def _memory(evidence: Evidence) -> Iterator[Made]:
    """Successive increments of the residual, over a day, are as alike as those of the members."""
    if (own := _increments(evidence, evidence.daily.stride)) is None:
        return
    drifters, members = (_alike(evidence, one, "product") for one in (own, evidence.daily))
    if (test := mean_test(drifters.influence - members.influence, evidence.cluster)) is None:
        return
    hours = evidence.daily.stride * evidence.lead_hours[0]
    # without the noise of the ensemble's mean, whose increments are like a member's, but smaller
    rest, theirs = evidence.members - 1, evidence.daily
    square = (own.square - theirs.square / rest).sum()
    forgets = drifters.ratio.value
    if square > own.square.sum() / 2:  # else that noise is all there is
        forgets = drifters.pairs * (own.product - theirs.product / rest).sum() / square
    finding = findings.memory(drifters.ratio.value, members.ratio.value, float(forgets), hours)
    quantity = f"correlation of successive increments over {findings.duration(hours)}"
    estimates = (drifters.estimate("drifters", members.ratio.value), members.estimate("members", None))
    yield Made("memory", findings.QUESTIONS["memory"], test, quantity, estimates, finding)


def _turning(evidence: Evidence) -> Iterator[Made]:
    """Increments of the residual over a few hours turn, and turn back, as those of the members."""
    theirs = evidence.hourly
    own = _increments(evidence, theirs.stride)
    if own is None or theirs.stride >= evidence.daily.stride:
        return
    sign = np.where(evidence.south, -1.0, 1.0)
    own, theirs = (one._replace(turning=one.turning * sign) for one in (own, theirs))
    straight, left = ([_alike(evidence, one, name) for one in (own, theirs)] for name in ("product", "turning"))
    apart = np.hstack([drifters.influence - members.influence for drifters, members in (straight, left)])
    if (test := mean_test(apart, evidence.cluster)) is None:
        return
    hours = theirs.stride * evidence.lead_hours[0]
    estimates = (
        straight[0].estimate("straight on", straight[1].ratio.value),
        left[0].estimate("cyclonic", left[1].ratio.value),
    )
    finding = findings.turning(float(test.z[0]), float(test.z[1]), hours, evidence.south)
    quantity = f"correlation of successive increments over {findings.duration(hours)}"
    yield Made("turning", findings.QUESTIONS["turning"], test, quantity, estimates, finding)


def _jitter(evidence: Evidence) -> Iterator[Made]:
    """Increments of the residual from fix to fix are as alike as those of the members."""
    theirs = evidence.successive
    own = _increments(evidence, theirs.stride)
    if own is None or theirs.stride >= evidence.hourly.stride:
        return
    drifters, members = (_alike(evidence, one, "product") for one in (own, theirs))
    if (test := mean_test(drifters.influence - members.influence, evidence.cluster)) is None:
        return
    n_pairs = len(evidence.lead_hours) - 1
    # an error of variance s2 in each of two directions gives successive increments the product -2 s2
    excess = (members.ratio.value * own.square / drifters.pairs - own.product).mean() / n_pairs
    error = float(np.sqrt(max(excess, 0.0) / 2))
    hours = evidence.lead_hours[0]
    finding = findings.jitter(drifters.ratio.value, members.ratio.value, error, float(hours))
    quantity = f"correlation of successive increments over {findings.duration(hours)}"
    estimates = (drifters.estimate("drifters", members.ratio.value), members.estimate("members", None))
    yield Made("jitter", findings.QUESTIONS["jitter"], test, quantity, estimates, finding)


def _increments(evidence: Evidence, stride: int) -> MemberMemory | None:
    """The drifters' own increments over `stride` fixes; None where a track has fewer than two."""
    ends = evidence.departure[:, stride - 1 :: stride]
    increments = np.diff(ends, axis=1, prepend=0.0)
    if increments.shape[1] < 2:
        return None
    increments -= increments.mean(axis=(0, 1))  # a mean drift is another finding
    before, after = increments[:, :-1], increments[:, 1:]
    return MemberMemory(
        stride,
        product=(before * after).sum(axis=(1, 2)),
        turning=(before[..., 0] * after[..., 1] - before[..., 1] * after[..., 0]).sum(axis=1),
        square=(increments**2).sum(axis=(1, 2)),
    )


class Alike(NamedTuple):
    """Correlation of successive increments, with every sample's influence on it."""

    ratio: Interval
    influence: Float[np.ndarray, "n 1"]
    pairs: float

    def estimate(self, name: str, expected: float | None) -> Estimate:
        """The correlation as a check tells it."""
        return Estimate(name, self.ratio.value, (self.ratio.low, self.ratio.high), expected)


def _alike(evidence: Evidence, memory: MemberMemory, what: str) -> Alike:
    """Correlation of increments that `memory` has the sums of: of scalar or of vector products."""
    n = len(evidence.lead_hours) // memory.stride
    pairs = n / (n - 1)
    above = pairs * getattr(memory, what)
    ratio = ratio_interval(above, memory.square, evidence.cluster)
    influence = ratio.value + (above - ratio.value * memory.square) / memory.square.mean()
    return Alike(ratio, influence[:, None], pairs)


def _reliability(evidence: Evidence) -> Iterator[Made]:
    """The drifter lies among the members like one of them, at every lead time."""
    hours = evidence.lead_hours
    parts = [
        ("early", hours <= hours[-1] / 4),
        ("late", hours > 3 * hours[-1] / 4),
    ]
    first = hours <= FIRST_HOURS
    if first.any() and first.sum() < parts[0][1].sum():
        parts.insert(0, ("first hours", first))
    parts = [(name, part) for name, part in parts if part.any()]
    shares = np.stack([evidence.rank[:, part].mean(axis=1) - 0.5 for _, part in parts], axis=1)
    if (test := mean_test(shares, evidence.cluster)) is None:
        return
    estimates = tuple(_ratio(evidence, part, name) for name, part in lead_parts(hours))
    shown = [_ratio(evidence, part, name) for name, part in parts]
    z = dict(zip((name for name, _ in parts), test.z.tolist(), strict=True))
    finding = findings.reliability({one.name: one.value for one in shown}, z)
    yield Made("reliability", findings.QUESTIONS["reliability"], test, "spread / error", estimates, finding)


CHECKS: tuple[Callable[[Evidence], Iterator[Made]], ...] = (
    _by_lead_time,
    _first_hours,
    _by_condition,
    _by_group,
    _mean_residual,
    _objectives,
    _memory,
    _turning,
    _jitter,
    _reliability,
)


def thirds_of(values: Float[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
    """Third of every value: 0, 1 or 2; equal values stand together."""
    return np.searchsorted(np.quantile(values, [1 / 3, 2 / 3]), values, side="left")


def lead_parts(hours: Float[np.ndarray, " obs"]) -> list[tuple[str, Bool[np.ndarray, " obs"]]]:
    """Parts of the lead time that figures show: the first hours, then days, or quarters of a shorter track."""
    whole = round(hours[-1] / DAY)
    days = whole >= 3 and abs(hours[-1] - DAY * whole) <= hours[0]
    n, unit = (min(whole, 10), "day") if days else (4, "quarter")
    edges = hours[-1] * np.arange(n + 1) / n
    if unit == "day" and n != whole:
        unit = "tenth"
    parts = [(f"{unit} {k + 1}", (hours > edges[k]) & (hours <= edges[k + 1] * (1 + 1e-9))) for k in range(n)]
    first = hours <= FIRST_HOURS
    if first.any() and first.sum() < parts[0][1].sum():
        parts.insert(0, (f"first {FIRST_HOURS:g} h", first))
    return [(name, part) for name, part in parts if part.any()]


def _parameter(
    evidence: Evidence,
    weight: Float[np.ndarray, "#n obs"] | Bool[np.ndarray, "#n obs"],
    name: str,
    moments: Moments | None = None,
) -> Estimate | None:
    """The one positive parameter as a part of the samples and lead times has it, one step from that of all.

    None where the part's curvature is not above zero beyond chance, or the step is too long to be believed; an end of
    the interval that is too far to be told takes the whole interval with it.
    """
    assert evidence.parameter is not None
    moments = evidence.objective if moments is None else moments
    assert moments is not None
    slope = (moments.slope[..., 0] * weight).mean(axis=1)
    scale = (moments.curvature[..., 0, 0] * weight).mean(axis=1)
    curved = mean_test(scale[:, None], evidence.cluster)
    if scale.mean() <= 0 or (curved is not None and curved.z[0] < CURVED):
        return None
    ratio = ratio_interval(slope, scale, evidence.cluster)
    step = evidence.parameter.step
    to, *ends = (step(q) for q in (ratio.value, ratio.high, ratio.low))
    if not abs(to) < LONGEST_STEP:
        return None
    log = evidence.parameter.log
    interval = tuple(float(np.exp(log + end)) for end in ends) if max(map(abs, ends)) < LONGEST_STEP else None
    return Estimate(name, float(np.exp(log + to)), interval, None)


def _told(estimates: Iterable[Estimate | None]) -> tuple[Estimate, ...]:
    """Those that can be told."""
    return tuple(one for one in estimates if one is not None)


def _estimate(
    name: str,
    above: Float[np.ndarray, " n"],
    below: Float[np.ndarray, " n"],
    cluster: Int[np.ndarray, " n"],
    expected: float | None,
) -> Estimate:
    ratio = ratio_interval(above, below, cluster)
    return Estimate(name, ratio.value, (ratio.low, ratio.high), expected)


def _ratio(evidence: Evidence, part: Bool[np.ndarray, " obs"], name: str) -> Estimate:
    """Root mean square spread over root mean square error of a part of the lead times."""
    ratio = ratio_interval(
        evidence.spread2[:, part].mean(axis=1), evidence.error2[:, part].mean(axis=1), evidence.cluster
    )
    value, *ends = (float(np.sqrt(max(square, 0.0))) for square in (ratio.value, ratio.low, ratio.high))
    return Estimate(name, value, tuple(ends), 1.0)
