"""Positive parameters that run to a bound: to zero, or so far up that they no longer matter.

Where the truth of a positive parameter is zero, the score falls towards zero, and the logarithm, which is what is
trained, runs down without end. Such a parameter is held at its bound, `BOUND_FACTOR` below its start, where it has no
effect; the others are minimised as ever, and then the bound is judged by the derivative of the score there. The bound
stands unless that derivative says, at the level of 5 %, that the score is lower inside. Its interval is one-sided: it
ends where the same test first says, at 5 %, that the score is lower nearer to the bound (inversion of a score test; Cox
and Hinkley 1974, ch. 7). A test of a derivative at a point holds at a bound too, where intervals about an estimate fail
(Self and Liang 1987). The derivative is that in the one parameter when the others follow, to first order: the part that
moves with the gradients of the others is taken off (Neyman's C(alpha) test). The same upwards, with the reciprocal in
place of the value.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy.special import stdtrit

from driftcal.train.fit import trust_region
from driftcal.train.fit.fixed_noise import FixedNoise, Pass
from driftcal.train.fit.parameters import FAR_FACTOR, Parameters, RanOff
from driftcal.train.fit.standard_errors import Estimate, covariance_of_mean, degrees_of_freedom

BOUND_FACTOR = 1e4
"""A bound's distance from the start, as a factor. Nearer to zero C_s would only make up for metres of rounding."""

STILL_RUNNING = 0.5
"""A last correction of a logarithm beyond this, away from the start, is that of a parameter that runs to a bound: where
the score is linear in the value, every correction is 1."""

BEYOND = 2
"""Powers of ten beyond the start up to which the end of an interval is looked for."""

NO_EFFECT = 0.03
"""Share of the derivative at the start that is left at a bound at most: else the score falls on beyond it."""

OTHERS_PASSES = 6
"""Passes at most that minimise the others at one value."""

MOST_TRIED = 16
"""Values tried for the end of one interval."""

NEAR_ENOUGH = 0.02
"""Share by which the test's statistic at the end of an interval may miss its critical value."""


@dataclass(frozen=True)
class Bound:
    """A parameter at its bound.

    Attributes:
        index: its place among the parameters.
        at: its logarithm there.
        far: logarithm of the inner end of its one-sided 95 % interval; None where no value is excluded.
    """

    index: int
    at: float
    far: float | None


@dataclass(frozen=True)
class AtBound:
    """The estimate of a run in which parameters are at their bounds; all as trained.

    Attributes:
        others: estimate of the other parameters; None where there are none.
        bounds: the parameters at their bounds.
        last: pass at the result.
        names: of the parameters at their bounds, as text calls them, with the bound.
        n_drifters: drifters used.
        n_clusters: clusters used.
        size: number of parameters.
    """

    others: Estimate | None
    bounds: tuple[Bound, ...]
    last: Pass
    names: tuple[str, ...]
    n_drifters: int
    n_clusters: int
    size: int

    @property
    def _free(self) -> Int[np.ndarray, " free"]:
        return np.setdiff1d(np.arange(self.size), [bound.index for bound in self.bounds])

    @property
    def parameters(self) -> Float[np.ndarray, " P"]:
        """Parameters of the last pass."""
        return self.last.parameters

    @property
    def corrected(self) -> Float[np.ndarray, " P"]:
        """The parameters after the last correction, which moves those that are not at a bound."""
        return self.last.parameters

    @property
    def covariance(self) -> Float[np.ndarray, "P P"] | None:
        """Covariance of the other parameters; 0 for those at a bound, None where the others have none."""
        found = np.zeros((self.size, self.size))
        if self.others is not None:
            if self.others.covariance is None:
                return None
            found[np.ix_(self._free, self._free)] = self.others.covariance
        return found

    @property
    def standard_error(self) -> Float[np.ndarray, " P"] | None:
        """Standard errors; 0 for a parameter at its bound, which has an interval instead."""
        return None if self.covariance is None else np.sqrt(np.diag(self.covariance))

    @property
    def degrees(self) -> float:
        """Degrees of freedom of the others' standard errors."""
        return float(self.n_clusters - 1) if self.others is None else self.others.degrees

    @property
    def quantile(self) -> float:
        """Half width of a 90 % interval of the others in standard errors."""
        return float("nan") if self.others is None else self.others.quantile

    @property
    def curvature(self) -> Float[np.ndarray, "P P"]:
        """Second derivatives of the mean objective; 0 at a bound."""
        found = np.zeros((self.size, self.size))
        if self.others is not None:
            found[np.ix_(self._free, self._free)] = self.others.curvature
        return found

    @property
    def score(self) -> float:
        """Mean objective of the last pass."""
        return float(self.last.loss.mean())

    @property
    def n_samples(self) -> int:
        """Samples of the last pass."""
        return len(self.last.loss)

    @property
    def counts(self) -> dict[str, int]:
        """Numbers added up over the samples of the last pass, by name."""
        return self.last.counts

    @property
    def settled(self) -> bool:
        """No: a parameter at its bound has no minimum."""
        return False

    def explain(self, what: str) -> str:
        """Sentence on where the parameters are."""
        del what
        said = "; ".join(self.names)
        if self.others is None:
            return said
        return f"{said}; of the others: {self.others.explain('them')}"


def minimise(
    objective: FixedNoise, start: Callable[[], Float[np.ndarray, " P"]], numbers: Int[np.ndarray, " n"], most: int
) -> Estimate | AtBound:
    """Minimises over the samples `numbers`, with parameters that run off held at their bounds.

    Args:
        objective: of all parameters.
        start: finds the parameters, as trained, from which to minimise.
        numbers: the samples.
        most: passes at most.

    Raises:
        RanOff: a parameter has no minimum near its start, and does not fit at its bound either.
    """
    parameters = objective.parameters
    held: dict[int, float] = {}
    free: Estimate | None = None
    first: RanOff | None = None
    while True:
        part = objective.holding(held)
        found = None
        try:
            if part.parameters.size:
                here = part.approach(part.parameters.start, numbers) if held else start()
                found = part.minimise("final pass", here, numbers, most)[-1]
            runs = None if found is None else running(part.parameters, found)
            if runs is None:
                break
            free = found if not held else free
        except RanOff as error:
            if error.way > 0 and parameters.closed_form:
                raise  # members that all leave their windows are no longer moved, but not because it does not matter
            first, runs = first or error, (error.index, error.way)
        k = parameters.names.index(part.parameters.names[runs[0]])
        held[k] = float(parameters.start[k] + runs[1] * np.log(BOUND_FACTOR))
    if not held:
        assert found is not None
        return found
    at = _whole(parameters.size, held, np.zeros(0) if found is None else found.corrected)
    judged = _judged(objective, at, held, found, numbers)
    if judged is not None:
        return judged
    if free is not None:
        return free
    assert first is not None
    raise first


def running(parameters: Parameters, found: Estimate) -> tuple[int, int] | None:
    """The positive parameter that still runs away from its start, and whether it runs down (-1) or up (1).

    Far down, where its effect is next to nothing, the curvature may have either sign: without a minimum to look at,
    distance alone makes it one.
    """
    away = found.corrected - parameters.start
    runs = parameters.positive & (np.abs(away) >= np.log(FAR_FACTOR))
    if found.minimum:
        runs &= (np.abs(found.step) >= STILL_RUNNING) & (np.sign(found.step) == np.sign(away))
    if not runs.any():
        return None
    k = int(np.argmax(np.where(runs, np.abs(away), 0.0)))
    return k, int(np.sign(away[k]))


def _judged(
    objective: FixedNoise,
    at: Float[np.ndarray, " P"],
    held: dict[int, float],
    others: Estimate | None,
    numbers: Int[np.ndarray, " n"],
) -> AtBound | None:
    """The estimate with parameters at their bounds; None where the score is lower inside, or falls on beyond."""
    parameters = objective.parameters
    last = objective.pass_at("at the bound", at, numbers)
    many = len(np.unique(objective.cluster[last.samples])) > 1
    bounds, names = [], []
    for k, bound in held.items():
        way = int(np.sign(bound - parameters.start[k]))
        if np.abs(last.gradient[:, k]).mean() > NO_EFFECT * _effect_at_start(objective, at, k, numbers):
            return None
        far = None
        if many:
            z, critical = _inwards(objective, last, k, way, held, numbers)
            if z < -critical:
                return None
            far = _inner_end(objective, at, k, way, held, numbers) if z < critical else bound
        bounds.append(Bound(k, bound, far))
        symbol, value = parameters.symbol(k), parameters.values(at)[k]
        names.append(f"{symbol} is at its bound: {'zero' if way < 0 else f'{value:.3g}'} fits as well as anything")
    n_drifters, n_clusters = (len(np.unique(of[last.samples])) for of in (objective.drifter, objective.cluster))
    return AtBound(others, tuple(bounds), last, tuple(names), n_drifters, n_clusters, parameters.size)


def _inwards(
    objective: FixedNoise, one: Pass, k: int, way: int, held: Collection[int], numbers: Int[np.ndarray, " n"]
) -> tuple[float, float]:
    """Derivative in parameter `k` away from its bound over its standard error, and its critical value at 5 %."""
    free = [j for j in range(objective.parameters.size) if j not in held]
    inwards = -way * one.gradient[:, [k]]
    if free:
        mixed = _mixed(objective, one, free, numbers)
        inwards = inwards + way * (one.gradient[:, free] @ np.linalg.solve(mixed[free], mixed[k]))[:, None]
    cluster = objective.cluster[one.samples]
    error, mean = float(np.sqrt(covariance_of_mean(inwards, cluster)[0, 0])), float(inwards.mean())
    critical = float(stdtrit(degrees_of_freedom(inwards, cluster), 0.95))
    return (mean / error if error > 0 else float(np.sign(mean)) * np.inf if mean else 0.0), critical


def _others(
    objective: FixedNoise, held: dict[int, float], near: Float[np.ndarray, " P"], numbers: Int[np.ndarray, " n"]
) -> tuple[dict[int, float], Float[np.ndarray, " free"]]:
    """The parameters that are not `held`, minimised from `near`; with those that run off added to the held ones."""
    parameters = objective.parameters
    while True:
        free = [j for j in range(parameters.size) if j not in held]
        if not free:
            return held, np.zeros(0)
        try:
            found = objective.holding(held).minimise("interval", near[free], numbers, OTHERS_PASSES)[-1]
        except RanOff as error:
            j = free[error.index]
            held = held | {j: float(parameters.start[j] + error.way * np.log(BOUND_FACTOR))}
            continue
        return held, found.corrected


def _whole(size: int, held: dict[int, float], others: Float[np.ndarray, " free"]) -> Float[np.ndarray, " P"]:
    """All parameters, of those held and of the others."""
    found = np.empty(size)
    found[list(held)] = list(held.values())
    found[[j for j in range(size) if j not in held]] = others
    return found


def _effect_at_start(
    objective: FixedNoise, at: Float[np.ndarray, " P"], k: int, numbers: Int[np.ndarray, " n"]
) -> float:
    """Mean size of the derivative in parameter `k` at its start, with the others where they are."""
    there = at.copy()
    there[k] = objective.parameters.start[k]
    return float(
        np.abs(objective.pass_at("effect", there, numbers[: objective.curvature_samples]).gradient[:, k]).mean()
    )


def _mixed(
    objective: FixedNoise, last: Pass, free: list[int], numbers: Int[np.ndarray, " n"]
) -> Float[np.ndarray, "P free"]:
    """Second derivatives of the mean objective in every parameter and every free one, at the last pass."""
    if not free:
        return np.zeros((objective.parameters.size, 0))
    parameters, few = objective.parameters, numbers[: objective.curvature_samples]
    names = tuple(parameters.names[k] for k in free)
    metric = trust_region.metric_of(last.gradient[:, free], last.dispersion, names, parameters.positive[free])
    slopes = []
    for difference in trust_region.differences(metric):
        whole = np.zeros(parameters.size)
        whole[free] = difference
        below, above = (objective.pass_at("curvature", last.parameters + d, few) for d in (-whole, whole))
        _, low, high = np.intersect1d(below.samples, above.samples, return_indices=True)
        slopes.append(0.5 * (above.gradient[high] - below.gradient[low]).mean(axis=0))
    return np.linalg.solve(trust_region.differences(metric), np.array(slopes)).T


def _inner_end(
    objective: FixedNoise,
    at: Float[np.ndarray, " P"],
    k: int,
    way: int,
    held: dict[int, float],
    numbers: Int[np.ndarray, " n"],
) -> float | None:
    """Logarithm of the first value at which the score test says that the score is lower nearer to the bound.

    Between the bound and the start, or a little beyond it, by false position in the value (or its reciprocal), in
    which the derivative is about linear (Illinois method; Dowell and Jarratt 1971). The others are minimised at each.
    """

    def excess(distance: float) -> float:
        here = held | {k: -way * float(np.log(distance))}
        here, others = _others(objective, here, at, numbers)
        there = _whole(objective.parameters.size, here, others)
        z, critical = _inwards(objective, objective.pass_at("interval", there, numbers), k, way, here, numbers)
        return z / critical - 1.0

    low, high = float(np.exp(-way * at[k])), float(np.exp(-way * objective.parameters.start[k]))
    below, tried = -1.0, 0
    while (above := excess(high)) <= 0.0:
        low, below, high, tried = high, above, 10.0 * high, tried + 1
        if tried > BEYOND:
            return None
    side = 0
    for _ in range(MOST_TRIED):
        middle = (low * above - high * below) / (above - below)
        value = excess(middle)
        if abs(value) <= NEAR_ENOUGH:
            return -way * float(np.log(middle))
        if value > 0:
            high, above, below, side = middle, value, below * (0.5 if side == 1 else 1.0), 1
        else:
            low, below, above, side = middle, value, above * (0.5 if side == -1 else 1.0), -1
    return -way * float(np.log(high))
