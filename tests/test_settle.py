"""Newton's method on fixed samples: from far away to a minimum that is known in closed form.

Gaussian ensembles about Gaussian truths in two dimensions, with a standard deviation of its own in each direction: the
energy score is least where the ensemble's are the truth's.
"""

import equinox as eqx
import numpy as np
import pytest

from driftcal.shared.errors import DataError
from driftcal.train.fit.fixed_noise import FixedNoise, Pass
from driftcal.train.fit.parameters import Parameters

MEMBERS = 10


class Toy(FixedNoise):
    """Passes over made samples; `K = s^2` in each direction, trained as logarithms."""

    def __init__(self, rng, n, spread, start, own=0.0):
        drifter = np.arange(n) // 4
        parameters = Parameters(eqx.Module(), ("east", "north"), np.ones(2, bool), np.log(np.asarray(start) ** 2), "")
        super().__init__(parameters, self.at, drifter, drifter, 2048)
        common = rng.normal(size=(drifter.max() + 1, 2))[drifter]
        self.seen = (np.sqrt(1 - own) * rng.normal(size=(n, 2)) + np.sqrt(own) * common) * np.asarray(spread)
        self.noise = rng.normal(size=(n, MEMBERS, 2))
        self.start, self.taken = parameters.start, 0

    def at(self, name, parameters, numbers):
        s = np.exp(parameters / 2)
        members, seen = s * self.noise[numbers], self.seen[numbers, None]

        def mean_distance(away, along):
            """Mean of |away| over pairs, and its derivative along `along` [d away / d log K]."""
            d = np.linalg.norm(away, axis=-1)
            slope = away * along / np.where(d > 0, d, 1.0)[..., None]
            axes = tuple(range(1, d.ndim))
            return d.mean(axis=axes), slope.mean(axis=axes)

        to_seen, slope_seen = mean_distance(members - seen, members / 2)
        pairs = members[:, :, None] - members[:, None]
        between, slope_between = (0.5 * MEMBERS / (MEMBERS - 1) * v for v in mean_distance(pairs, pairs / 2))
        self.taken += len(numbers)
        return Pass(parameters, numbers, to_seen - between, slope_seen - slope_between, between, {})


@pytest.mark.parametrize("factor", [(1 / 9, 1 / 9), (9.0, 9.0), (1 / 9, 9.0), (1e-4, 1.0), (1e3, 30.0)])
def test_two_parameters_come_from_anywhere_to_the_minimum(factor):
    rng = np.random.default_rng(0)
    truth = np.array([3.0, 0.7])
    toy = Toy(rng, 6000, truth, truth * np.sqrt(factor))
    numbers = rng.permutation(6000)
    near = toy.approach(toy.start, numbers)
    found = toy.minimise("final pass", near, numbers, 5)[-1]
    assert found.settled
    assert found.standard_error is not None
    off = (found.corrected - np.log(truth**2)) / found.standard_error
    assert np.abs(off).max() < 3.5
    assert found.standard_error.max() < 0.2
    # the zero itself: another pass there finds no gradient
    again = toy.at("", found.corrected, numbers).gradient.mean(axis=0)
    assert np.abs(np.linalg.solve(found.curvature, again) / found.standard_error).max() < 0.05
    assert toy.taken < 25 * 6000


def test_standard_error_is_right_and_shrinks_with_the_root_of_the_number():
    """Repeated experiments with samples that share their drifter's chance, at three sizes."""
    rng = np.random.default_rng(1)
    truth, sizes = np.array([1.0, 1.0]), (128, 512, 2048)
    errors, scatter = [], []
    for n in sizes:
        found = []
        for _ in range(30):
            toy = Toy(rng, n, truth, truth * 1.1, own=0.5)
            found.append(toy.minimise("final pass", toy.start, np.arange(n), 6)[-1])
        assert all(one.settled for one in found)
        errors.append(np.mean([one.standard_error for one in found]))
        scatter.append(np.sqrt(np.mean([one.corrected**2 for one in found])))
    np.testing.assert_allclose(np.array(errors[:-1]) / errors[1:], 2.0, rtol=0.08)
    np.testing.assert_allclose(scatter, errors, rtol=0.3)


def test_a_step_that_raises_the_objective_is_taken_back():
    """The curvature far below the minimum promises too much; the loss of what is accepted only falls."""
    rng = np.random.default_rng(2)
    toy = Toy(rng, 800, (1.0, 1.0), (1e-3, 40.0))
    history = toy.minimise("final pass", toy.start, np.arange(800), 40)
    scores = [one.score for one in history]
    assert history[-1].settled
    assert (np.diff(scores) <= 1e-12).all()


def test_what_has_no_minimum_diverges_with_a_message():
    rng = np.random.default_rng(3)
    toy = Toy(rng, 400, (1.0, 1.0), (1.0, 1.0))
    toy.seen[:, 1] = 0.0  # no chance at all to the north: the smaller the better
    with pytest.raises(DataError, match=r"parameter north went to .* no minimum near its start, 1"):
        toy.minimise("final pass", toy.start, np.arange(400), 200, near=0.0)
