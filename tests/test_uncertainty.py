"""The standard error clustered by drifter: intervals cover as often as they say, on samples whose truth is known."""

import numpy as np
import pytest
from scipy import stats

from driftcal.train.fit.standard_errors import degrees_of_freedom, estimate, quantile_90


def interval(
    rng: np.random.Generator, counts: np.ndarray, shared: float, curvature: float = 1.7
) -> tuple[float, float]:
    """90 % interval of a parameter whose truth is 0, from gradients at 0.3 that samples of a drifter partly share."""
    drifter = np.repeat(np.arange(len(counts)), counts)
    noise = rng.gamma(2.0, 1.0, len(drifter)) - 2.0 + shared * rng.standard_normal(len(counts))[drifter]
    at = np.array([0.3])
    gradient = (curvature * at + noise)[:, None]
    step = -gradient.mean(axis=0) / curvature
    found = estimate(at, step, noise, gradient, drifter, np.array([[curvature]]), True, {})
    assert found.standard_error is not None
    half = found.quantile * found.standard_error[0]
    return float(found.corrected[0] - half), float(found.corrected[0] + half)


@pytest.mark.parametrize(
    ("counts", "shared"),
    [
        (np.full(60, 7), 0.0),
        (np.full(60, 7), 1.0),
        (np.full(8, 7), 1.0),  # few drifters: a normal quantile covers 85 % only
        (np.concatenate([np.full(24, 4), [40, 25, 25]]), 0.7),  # three that live long
    ],
)
def test_90_percent_intervals_cover_in_90_percent(counts: np.ndarray, shared: float) -> None:
    rng = np.random.default_rng(7)
    ends = np.array([interval(rng, counts, shared) for _ in range(2000)])
    covered = ((ends[:, 0] <= 0) & (ends[:, 1] >= 0)).mean()
    assert 0.875 < covered < 0.93


def test_samples_of_one_drifter_are_not_independent() -> None:
    rng = np.random.default_rng(8)
    counts = np.full(60, 7)
    widths = np.array([np.diff(interval(rng, counts, 1.0))[0] for _ in range(200)])
    # the variance of a drifter's sum of 7: 7 x 2 of its own and 49 shared
    assert np.median(widths) == pytest.approx(2 * quantile_90(59) * np.sqrt(63 / 60) / 7 / 1.7, rel=0.05)


def test_degrees_of_freedom_are_of_drifters_that_weigh_alike() -> None:
    rng = np.random.default_rng(9)

    def degrees(counts: list[int], shared: float) -> float:
        drifter = np.repeat(7 * np.arange(len(counts)), counts)
        noise = rng.standard_normal(len(drifter)) + shared * rng.standard_normal(len(counts))[drifter // 7]
        return degrees_of_freedom(noise[:, None], drifter)

    assert degrees([5] * 9, 2.0) == pytest.approx(8.0)
    assert degrees([3, 1], 0.0) == 1.0
    # sums of independent samples have variances as their number, of samples alike as its square
    assert degrees([200, 20] * 30, 0.0) == pytest.approx(6600**2 / (30 * (200**2 + 20**2)) - 1, rel=0.1)
    assert degrees([200, 20] * 30, 50.0) == pytest.approx(30 * 40400**2 / (200**4 + 20**4) - 1, rel=0.05)
    assert quantile_90(8.0) == pytest.approx(stats.t.ppf(0.95, 8))
    assert quantile_90(1e9) == pytest.approx(1.645, abs=1e-3)
