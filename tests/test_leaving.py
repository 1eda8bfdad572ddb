"""Foretold members that leave their windows, against closed forms and the independent simulator of the tests."""

import json
from pathlib import Path

import numpy as np
import pytest

from driftcal.preprocess.__main__ import main
from driftcal.preprocess.drift import leaving
from driftcal.preprocess.drift.leaving import Leaving
from driftcal.shared.geo import METRES_PER_DEGREE
from driftcal.shared.store.schema import FILL
from tests import fields, oracle

DAY = 86_400
STEP = np.array([0.25, 0.25])


def flow_of(u: float, kappa: float, n_windows: int = 1, shape: tuple[int, int] = (21, 31)) -> leaving._Flow:
    """The same everywhere."""
    zero = np.zeros((n_windows, *shape))
    return leaving._Flow(zero + u, zero, zero + kappa, zero, zero)


def test_the_flow_is_that_of_the_equations() -> None:
    """With land: kappa and its gradient of every node, against plain loops over nodes."""
    rng = np.random.default_rng(2)
    packed = rng.integers(-9000, 9000, (2, 2, 8, 12)).astype(np.int16)
    packed[0, :, 2:5, 3:7], packed[1, :, 0, :], packed[1, :, :, 11] = FILL, FILL, FILL
    south = np.array([-37.5, 52.25])
    found = leaving._flow(packed, south, 0.25, 0.125)
    for k in range(2):
        u, v = np.where(packed[k] == FILL, np.nan, packed[k] * 1e-4)
        window = oracle.Window(np.stack([u, u]), np.stack([v, v]), south[k], 0.125, 0.25, DAY)
        for name, expected in zip(("u", "v", "kappa", "kappa_x", "kappa_y"), window.fields(0.0), strict=True):
            np.testing.assert_allclose(getattr(found, name)[k], expected, rtol=1e-12, atol=1e-12, err_msg=name)


def test_a_current_carries_all_members_past_the_edge_by_as_much() -> None:
    """0.4 m/s eastward for two days at 60 degrees: 69.1 km, from 5 cells before the eastern edge."""
    flow, south = flow_of(0.4, 0.0), np.array([60.0 - 10 * 0.25])
    beyond = leaving._furthest(flow, south, STEP, np.array([[25.0, 10.0]]), 1.0, 2 * DAY)
    cells = 0.4 * 2 * DAY / (METRES_PER_DEGREE * 0.25 * np.cos(np.radians(60.0)))
    np.testing.assert_allclose(beyond[:, 0], cells - 5, rtol=1e-6)
    np.testing.assert_allclose(beyond[:, 1], -10)  # as far inside as it began


def test_as_many_diffuse_out_as_brownian_motion_does() -> None:
    """First passage out of a rectangle, from its middle: the series of the heat equation."""
    days, n = 5, 60
    flow, south = flow_of(0.0, 4000.0, n), np.full(n, -2.5)
    beyond = leaving._furthest(flow, south, STEP, np.tile([15.0, 10.0], (n, 1)), 10.0, days * DAY)
    expected = []
    for cells in (30, 20):
        width, k = cells * 0.25 * METRES_PER_DEGREE, 2 * np.arange(50) + 1
        decay = np.exp(-((k * np.pi / width) ** 2) * 4e4 * days * DAY)
        expected.append(float((4 / np.pi * np.sin(k * np.pi / 2) / k * decay).sum()))
    left = (beyond > 0).any(axis=1).mean()
    true = 1 - np.prod(expected)
    assert 0.1 < true < 0.5
    # hourly steps overlook few excursions; 3,000 members
    assert left == pytest.approx(true, abs=4 * np.sqrt(true * (1 - true) / 3000) + 0.03 * true)
    # and the quantile of how far they go is the half width that holds them
    wider = float(np.quantile(beyond[:, 1], 0.99))
    room = int(np.ceil(wider))
    held = leaving._furthest(
        flow_of(0.0, 4000.0, n, (21 + 2 * room, 141)),
        south,
        STEP,
        np.tile([70.0, 10.0 + room], (n, 1)),
        10.0,
        days * DAY,
    )
    assert (held[:, 1] > 0).mean() < 0.012


def test_members_on_land_stay() -> None:
    beyond = leaving._furthest(flow_of(0.0, 0.0), np.zeros(1), STEP, np.array([[1.0, 1.0]]), 10.0, 5 * DAY)
    np.testing.assert_array_equal(beyond, -1.0)


def test_the_dry_run_tells_shares_and_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = fields.small(tmp_path / "input")
    found = []
    for _ in range(2):
        assert main([path, "--out", str(tmp_path / "store"), "--dry-run", "--json"]) == 0
        found.append(json.loads(capsys.readouterr().out)["members_leaving"])
    assert found[0] == found[1]  # no chance in it
    assert [one["cs"] for one in found[0]] == [0.1, 1.0, 10.0]
    shares = [one["share"] for one in found[0]]
    assert 0 <= shares[0] <= shares[1] <= shares[2] <= 1
    assert shares[2] > 0
    assert main([path, "--out", str(tmp_path / "store"), "--dry-run"]) == 0
    said = capsys.readouterr().err
    assert "members that will leave their window in" in said
    assert main([path, "--out", str(tmp_path / "store")]) == 0
    assert "members that will leave" not in capsys.readouterr().err


def test_what_is_foretold_in_words() -> None:
    few = [Leaving(0.1, 0.0, 2.5, 96), Leaving(1.0, 0.0043, 2.5, 96), Leaving(10.0, 0.005, 2.5, 96)]
    assert leaving.lines(few, 5.0) == [
        "members that will leave their window in 5 days: about 0 % at C_s = 0.1, 0.4 % at C_s = 1, 0.5 % at C_s = 10 "
        "(96 windows)"
    ]
    far = [*few[:2], Leaving(10.0, 0.214, 4.1, 96)]
    assert "21 % at C_s = 10" in leaving.lines(far, 5.0)[0]
    assert leaving.lines(far, 5.0)[1:] == [
        "note: window.half_width_deg 4.1 for C_s up to 10 would hold all but 1.0 % of them."
    ]
    narrow = [few[0], Leaving(1.0, 0.03, 3.2, 96), Leaving(10.0, 0.5, 5.9, 96)]
    (warning,) = leaving.lines(narrow, 5.0)[1:]
    assert warning.startswith("WARNING: more than 1.0 % of the members will leave, which biases C_s.")
    assert "window.half_width_deg to 3.2 for C_s up to 1, 5.9 for C_s up to 10, or shorten segment.days" in warning
