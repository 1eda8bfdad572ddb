"""Numbers as people read them, at the borders of their units."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftcal.shared import text
from driftcal.shared.errors import ConfigError
from driftcal.shared.spacing import evenly


def test_one_is_singular() -> None:
    assert [text.counted(n, "sample") for n in (0, 1, 2, 1200)] == [
        "0 samples",
        "1 sample",
        "2 samples",
        "1,200 samples",
    ]
    assert [text.were(n) for n in (0, 1, 2)] == ["were", "was", "were"]


def test_lists_are_cut() -> None:
    assert text.listed([]) == ""
    assert text.listed(range(10)) == "0, 1, 2, 3, 4, 5, 6, 7, 8, 9"
    assert text.listed(["a", "b", "c"], most=2) == "a, b, ..."


@pytest.mark.parametrize(("n_bytes", "said"), [
    (0, "0 B"), (999, "999 B"), (999.4, "999 B"), (999.6, "1 kB"), (1234, "1.23 kB"), (999_499, "999 kB"),
    (999_500, "1 MB"), (44e6, "44 MB"), (90e9, "90 GB"), (2.5e12, "2.5 TB"), (1.5e15, "1,500 TB"),
])  # fmt: skip
def test_sizes(n_bytes: float, said: str) -> None:
    assert text.size(n_bytes) == said


@pytest.mark.parametrize(("seconds", "said"), [
    (0.2, "a second"), (1.04, "1 s"), (99.4, "99 s"), (99.6, "1.7 min"), (300, "5 min"), (5369, "89 min"),
    (5371, "1.5 h"), (47 * 3600, "47 h"), (48 * 3600, "2 days"), (86_400 * 250, "250 days"),
])  # fmt: skip
def test_durations(seconds: float, said: str) -> None:
    assert text.duration(seconds) == said


@pytest.mark.parametrize(("seconds", "said"), [
    (86_400, "1 d"), (21_600, "6 h"), (5400, "90 min"), (61, "61 s"), (172_800, "2 d"),
])  # fmt: skip
def test_intervals(seconds: int, said: str) -> None:
    assert text.interval(seconds) == said


@pytest.mark.parametrize(("written", "n_bytes"), [
    ("4GB", 4 * 10**9), ("1.5 GiB", 3 * 2**29), ("10kb", 10_000), ("500m", 5 * 10**8), (" 2 Ti ", 2**41), ("7b", 7),
])  # fmt: skip
def test_sizes_that_people_write(written: str, n_bytes: int) -> None:
    assert text.parse_size(written, "--x") == n_bytes


@pytest.mark.parametrize("written", ["", "2", "much", "-1GB", "0MB", "1e3MB", "4 G B", "4PB", "9999999999TB", "nanGB"])
def test_what_is_no_size(written: str) -> None:
    with pytest.raises(ConfigError, match=f"--x '{written}': expected a size with its unit, such as 4GB"):
        text.parse_size(written, "--x")


@given(st.integers(1, 3000), st.integers(2, 500))
def test_even_places_are_distinct_and_end_at_the_ends(n: int, most: int) -> None:
    places = evenly(n, most)
    assert len(places) == min(n, most)
    assert (places[0], places[-1]) == (0, n - 1)
    steps = np.diff(places)
    assert steps.size == 0 or (steps.min() > 0 and steps.max() - steps.min() <= 1)


def test_no_places() -> None:
    assert evenly(0, 5).size == 0


def test_stamps() -> None:
    assert text.stamp(np.int64(-1)) == "1969-12-31T23:59:59"
    assert text.stamp(1_264_917_600) == "2010-01-31T06:00:00"
