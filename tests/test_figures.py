"""Figures: what is drawn where, and that every page of the album comes out."""

import warnings
from pathlib import Path

import numpy as np
import pytest
from matplotlib.collections import PolyCollection
from matplotlib.image import imread

from driftcal.shared.errors import ConfigError, StoreError
from driftcal.shared.inspection import figures as album
from driftcal.shared.inspection import map_plots
from driftcal.shared.store.reader import ShardStore
from tests import stores


def _drawn(path: Path) -> None:
    """The figure has a page's size and more than one colour."""
    pixels = imread(path)
    assert min(pixels.shape[:2]) > 300
    assert np.ptp(pixels[..., :3]) > 0.5


@pytest.mark.parametrize("which", ["built", "seam"])
def test_the_album(request: pytest.FixtureRequest, tmp_path: Path, which: str) -> None:
    opened = ShardStore(request.getfixturevalue(which).path)
    made = album.plot(opened, tmp_path / "a" / "b")
    assert [path.name for path in made] == ["origins.png", "when.png", "speeds.png", "windows.png"]
    for path in made:
        _drawn(path)


def test_an_album_of_one_split(built: stores.Built, tmp_path: Path) -> None:
    opened = ShardStore(built.path)
    assert len(album.plot(opened, tmp_path, "test")) == 4
    with pytest.raises(StoreError, match="'dev' is not a split"):
        album.plot(opened, tmp_path, "dev")


def test_a_window_of_land_and_an_ensemble(tmp_path: Path) -> None:
    figure = map_plots.sheet(3.0)
    ax, other = figure.subplots(1, 2)
    map_plots.window(ax, np.full((2, 7, 12, 16), np.nan), (179.0, -3.0), (0.25, 0.2))
    track = np.array([[179.5, -2.5], [180.5, -2.0], [181.0, -1.8]])
    current = np.zeros((2, 7, 12, 16))
    current[1, :, :6] = 0.3
    drawn = map_plots.window(other, current, (179.0, -3.0), (0.25, 0.2), track, track + np.zeros((5, 1, 1)))
    np.testing.assert_allclose(np.ma.filled(drawn.get_array()).reshape(12, 16)[[0, 6], 3], [0.3, 0.0])
    assert other.get_xlim() == pytest.approx((178.875, 182.875))
    assert other.get_ylim() == pytest.approx((-3.1, -0.7))
    labels = [other.xaxis.get_major_formatter()(lon) for lon in (179.0, 180.0, 182.5)]
    assert labels == ["179°E", "180°", "177.5°W"]
    _drawn(map_plots.save(lambda: figure, tmp_path / "window.png"))


def test_land_at_some_levels_is_not_land() -> None:
    current = np.full((2, 3, 4, 8), 0.2)
    current[:, 1, 0, 0] = np.nan
    current[:, :, 3, 7] = np.nan
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mean = map_plots.mean_current(current)
    assert mean[0, 0, 0] == pytest.approx(0.2)
    assert np.isnan(mean[:, 3, 7]).all()
    assert np.isfinite(mean).sum() == 2 * 31


def test_origins_across_the_seam_lie_side_by_side() -> None:
    ax = map_plots.sheet(3.0).add_subplot()
    lonlat = np.array([[179.0, -20.0], [-179.0, -21.0], [178.0, -22.0]])
    map_plots.origins(ax, lonlat, {"train": np.array([True, True, False]), "own": np.array([2])}, lonlat[:1] + 0.5)
    west, east = ax.get_xlim()
    assert 177 < west < 178.1
    assert 181 <= east < 182
    assert any(isinstance(drawn, PolyCollection) for drawn in ax.collections)
    assert [label.split()[0] for label in ax.get_legend_handles_labels()[1]] == ["land", "train", "own"]


def test_figures_are_refused_where_they_cannot_be_written(tmp_path: Path) -> None:
    figure = map_plots.sheet(1.0)
    with pytest.raises(ConfigError, match=r"a\.txt: a figure is written as \.png, \.pdf or \.svg"):
        map_plots.save(lambda: figure, tmp_path / "a.txt")
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"cannot write .*/file/a\.png"):
        map_plots.save(lambda: figure, tmp_path / "file" / "a.png")
