"""Minimisation with fixed samples and fixed noise, at the end of a run: finds the zero of the gradient.

With samples and noise fixed the objective is a smooth function, so Newton's method inside a trust region
(`fit.trust_region`) finds the minimum near its start without a learning rate. Every pass gives every sample's gradient;
the curvature comes from two more passes per parameter over some of the samples. A pass is repeated from the corrected
parameters until the correction is small against its error (`fit.standard_errors`).

`approach` does the same on few samples, then on samples whose number doubles: it brings a user's parameters from any
start to the neighbourhood of the minimum.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Int

from driftcal.train.fit import trust_region
from driftcal.train.fit.parameters import Parameters
from driftcal.train.fit.standard_errors import Estimate, estimate

LEAST_GAIN = 1e-3
"""Least share of the predicted gain at which a step is accepted (Nocedal and Wright 2006, ch. 4)."""

MOVED = 0.1
"""The curvature is measured again where the parameters have moved by more than this, in the metric of the gradients."""

FIRST, GROWTH = 512, 8
"""Samples of the first approach, and how many times more each further one has."""

MOST_STEPS = 40
"""Passes of one approach; a handful is usual."""

NEAR = 1.0
"""An approach ends when the correction is shorter than this in standard errors of its own samples."""


@dataclass(frozen=True)
class Pass:
    """The result of a pass over samples at fixed parameters, for its good samples.

    Attributes:
        parameters: as trained.
        samples: numbers in the store.
        loss: of each.
        gradient: of each.
        dispersion: of each.
        counts: numbers added up over the samples, by name.
    """

    parameters: Float[np.ndarray, " P"]
    samples: Int[np.ndarray, " n"]
    loss: Float[np.ndarray, " n"]
    gradient: Float[np.ndarray, "n P"]
    dispersion: Float[np.ndarray, " n"]
    counts: dict[str, int]

    def gain(self, other: "Pass") -> float:
        """Mean by which the loss of the samples that are good in both is lower in `other`."""
        _, here, there = np.intersect1d(self.samples, other.samples, return_indices=True)
        return float((self.loss[here] - other.loss[there]).mean())


PassAt = Callable[[str, np.ndarray, np.ndarray], Pass]
"""(name, parameters as trained, numbers of samples) -> the pass over those samples; the name is for the log."""


@dataclass(frozen=True)
class FixedNoise:
    """The objective of samples with fixed noise, and its minimisation.

    Attributes:
        parameters: The parameters that are moved.
        pass_at: Makes a pass; the noise is the same in all of them.
        cluster: Every sample's cluster, such as its drifter, `(n,)`: errors are independent between clusters.
        drifter: Every sample's drifter, `(n,)`, to be counted.
        curvature_samples: Number of samples of which second derivatives are measured.
    """

    parameters: Parameters
    pass_at: PassAt
    cluster: np.ndarray
    drifter: np.ndarray
    curvature_samples: int

    def holding(self, held: Mapping[int, float]) -> "FixedNoise":
        """The objective as one of the other parameters, with those in the places `held` fixed there, as trained."""
        if not held:
            return self
        free = np.array([k for k in range(self.parameters.size) if k not in held], int)

        def pass_at(name: str, others: np.ndarray, numbers: np.ndarray) -> Pass:
            whole = np.empty(self.parameters.size)
            whole[list(held)], whole[free] = list(held.values()), others
            found = self.pass_at(name, whole, numbers)
            return replace(found, parameters=others, gradient=found.gradient[:, free])

        return replace(self, parameters=self.parameters.without(held), pass_at=pass_at)

    def curvature(self, here: Pass, metric: trust_region.Metric, few: np.ndarray) -> Float[np.ndarray, "P P"]:
        """Second derivatives of the mean objective of the samples `few`, from differences of its gradient."""
        slopes = []
        for difference in trust_region.differences(metric):
            below, above = (self.pass_at("curvature", here.parameters + d, few) for d in (-difference, difference))
            _, low, high = np.intersect1d(below.samples, above.samples, return_indices=True)
            slopes.append(0.5 * (above.gradient[high] - below.gradient[low]).mean(axis=0))
        return trust_region.curvature_from(metric, np.array(slopes))

    def minimise(
        self, name: str, start: np.ndarray, numbers: np.ndarray, most: int, near: float | None = None
    ) -> list[Estimate]:
        """Minimises over the samples `numbers` from `start`. Returns the estimate after every pass, in order.

        Args:
            name: of the passes, for the record.
            start: parameters as trained.
            numbers: the samples.
            most: passes at most.
            near: ends where the correction is shorter than this in standard errors; by default, where it is settled.
        """
        few = numbers[: self.curvature_samples]
        here = self.pass_at(f"{name} 1", start, numbers)
        radius, curvature, measured_at, history = trust_region.FIRST_RADIUS, None, start, []
        for number in range(2, most + 2):
            self.parameters.stop_if_lost(here.parameters, here.gradient)
            metric = trust_region.metric_of(
                here.gradient, here.dispersion, self.parameters.names, self.parameters.positive
            )
            if curvature is None or metric.length(here.parameters - measured_at) > MOVED:
                curvature, measured_at = self.curvature(here, metric, few), here.parameters
            slope = here.gradient.mean(axis=0)
            step = trust_region.step_within(slope, curvature, metric, radius)
            cluster, drifter = self.cluster[here.samples], self.drifter[here.samples]
            minimum = trust_region.is_minimum(metric, curvature)
            told = here.loss, here.gradient, cluster, curvature, minimum, here.counts, drifter
            found = estimate(here.parameters, step, *told)
            history.append(found)
            self.parameters.stop_if_diverged(found.corrected)
            close = near is not None and found.covariance is not None and found.distance <= near
            if found.settled or close or number > most:
                break
            there = self.pass_at(f"{name} {number}", found.corrected, numbers)
            ratio = here.gain(there) / trust_region.predicted_gain(slope, curvature, step)
            radius = trust_region.next_radius(radius, metric.length(step), ratio)
            here = there if ratio > LEAST_GAIN else here
        return history

    def approach(self, start: np.ndarray, numbers: np.ndarray) -> np.ndarray:
        """Approaches the minimum from any start, on the first few of `numbers`, then on samples whose number grows."""
        size = FIRST
        while size == FIRST or 2 * size < len(numbers):
            start = self.minimise(f"approach with {size}:", start, numbers[:size], MOST_STEPS, NEAR)[-1].corrected
            size *= GROWTH
        return start
