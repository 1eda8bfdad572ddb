"""The inspector: facts, pages, verdicts, figures and the command."""

import argparse
import json
import os
import re
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.image import imread

from driftcal.shared import __main__ as inspector
from driftcal.shared import command, geo
from driftcal.shared.errors import StoreError
from driftcal.shared.inspection import facts
from driftcal.shared.inspection import text as show
from driftcal.shared.store import manifest, schema, unfinished
from driftcal.shared.store.manifest import Stage
from driftcal.shared.store.reader import ShardStore
from driftcal.shared.store.verify import verify
from tests import stores

# Facts


def test_facts_of_a_finished_store(built: stores.Built) -> None:
    found = facts.facts(built.path)
    assert (found.name, found.finished, found.digest) == ("small", True, built.held.digest)
    assert found.layout == built.layout
    assert (found.shards_done, found.layout.n_shards, found.samples_done) == (3, 3, 23)
    on_disk = sum(file.stat().st_size for file in built.path.rglob("*") if file.is_file())
    assert found.bytes_on_disk == on_disk
    decoded = sum(values.nbytes for name, values in built.values.items() if name not in ("drifter", "split"))
    assert found.bytes_decoded == decoded + 23 * (4 + 1 + 8)
    assert found.ratio == pytest.approx(found.bytes_decoded / on_disk)
    assert found.n_drifters == 5
    assert found.splits == built.held.splits
    assert found.drogue == {"on": 11, "lost": 6, "unknown": 5}
    start = built.values["start_time"]
    assert found.period == tuple(str(np.datetime64(int(t), "s"))[:10] for t in (start.min(), start.max()))
    assert found.period[0] == "2016-02-28"
    origin = built.values["origin"]
    assert found.region == facts.Region(*origin[:, 0][[origin[:, 0].argmin(), origin[:, 0].argmax()]],
                                        *np.sort(origin[:, 1])[[0, -1]])  # fmt: skip
    assert json.loads(json.dumps(found.as_json(), allow_nan=False))["n_shards"] == 3


def test_facts_of_a_half_built_store(tmp_path: Path) -> None:
    half = stores.build(tmp_path / "half", 11, done=2)
    found = facts.facts(half.path)
    assert (found.finished, found.digest, found.funnel) == (False, None, ())
    assert (found.shards_done, found.layout.n_shards, found.samples_done) == (2, 3, 8)
    usable = half.values["status"][:8] == 0
    assert sum(split["samples"] for split in found.splits.values()) == usable.sum()
    assert found.splits["train"] == {"samples": 5, "drifters": 3}
    written = sum(p.stat().st_size for p in half.path.rglob("*") if p.is_file() and ".building" not in p.parts)
    assert found.bytes_on_disk == written
    assert found.period == ("2016-02-28", str(np.datetime64(int(half.values["start_time"][7]), "s"))[:10])
    assert "half-built: 2 of 3 shards done" in show.render(found)
    assert "samples       8 of 11" in show.render(found)
    verdict = verify(half.path)
    assert not verdict.ok
    assert "unfinished" in str(verdict.problem)


def test_facts_of_a_store_that_has_only_begun(tmp_path: Path) -> None:
    found = facts.facts(stores.build(tmp_path / "begun", done=0).path)
    assert (found.shards_done, found.period, found.region, found.ratio) == (0, None, None, None)
    assert "0 of 3 shards done" in show.render(found)
    assert "no sample" in show.render(found)


@pytest.mark.parametrize("content", [b"{", b"[]", b"{}", b'{"layout": {"n_samples": 3}}'])
def test_a_damaged_plan_is_named(tmp_path: Path, content: bytes) -> None:
    half = stores.build(tmp_path / "half", done=1)
    (half.path / manifest.STAGING / "plan.json").write_bytes(content)
    with pytest.raises(StoreError, match=r"plan\.json: not readable .*--overwrite"):
        facts.facts(half.path)


@pytest.mark.parametrize("sources", [{"drifters": ["x.nc"]}, {"currents": None}, [], {"drifters": [{"path": 5}]}])
def test_odd_sources_are_named(tmp_path: Path, capsys: pytest.CaptureFixture, sources: Any) -> None:
    built, half = stores.build(tmp_path / "whole"), stores.build(tmp_path / "half", done=1)
    stores.rewrite(built.path, lambda tree: tree.update(sources=sources))
    plan = unfinished.plan_of(half.path)
    plan.write_bytes(manifest.to_bytes({**json.loads(plan.read_text()), "sources": sources}))
    for store in (built.path, half.path):
        code, out, err = _run(capsys, "show", store)
        assert (code, out) == (1, "")
        assert re.search(r"(manifest|plan)\.json: .*sources is not", err)
    assert "sources is not what this schema has there: damaged" in str(verify(built.path).problem)


def test_a_mark_that_is_damaged_counts_as_none(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    half = stores.build(tmp_path / "half", done=2)
    path = unfinished.mark_of(half.path, 1)
    whole = path.read_bytes()
    (half.path / "origin" / "c" / "1" / "0").rename(tmp_path / "away")
    for content, said in (
        (whole, "shard 1 is marked as done, but origin/c/1/0 is missing or has another size, so it is made again."),
        (whole[:-40], "done-000001.json: not a readable mark .JSONDecodeError"),
        (b'{"files": {}}', "done-000001.json: not a readable mark .KeyError: 'digest'.: damaged, so shard 1 is made"),
    ):
        path.write_bytes(content)
        found = facts.facts(half.path)
        assert (found.shards_done, found.samples_done) == (1, 4)
        assert found.drogue == {"on": 1, "lost": 1, "unknown": 1}
        assert len(found.notes) == 1
        assert re.search(said, found.notes[0])
        code, out, _ = _run(capsys, "show", half.path)
        assert (code, "1 of 3 shards done" in out, "made again" in out) == (0, True, True)
    (tmp_path / "away").rename(half.path / "origin" / "c" / "1" / "0")
    path.write_bytes(whole)
    assert (facts.facts(half.path).shards_done, facts.facts(half.path).notes) == (2, ())


def test_no_flipped_bit_of_a_mark_goes_unnoticed(tmp_path: Path) -> None:
    half = stores.build(tmp_path / "half", done=1)
    path = unfinished.mark_of(half.path, 0)
    whole = path.read_bytes()
    digest = whole.index(b'"sha256": "') + 20  # inside the text of a file's digest
    for bit in [8 * digest, *np.random.default_rng(1).integers(0, 8 * len(whole), 400).tolist()]:
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        with pytest.raises(StoreError, match=r"done-000000\.json: not a readable mark .*so shard 0 is made again"):
            unfinished.read_mark(half.path, half.layout, 0)
    path.write_bytes(whole)
    assert len(unfinished.read_mark(half.path, half.layout, 0).files) == 13


def test_ctrl_c_says_what_is_left(capsys: pytest.CaptureFixture) -> None:
    def stopped(_: Any) -> int:
        raise KeyboardInterrupt

    options = argparse.Namespace(debug=False)
    assert command.run(stopped, options) == 3
    assert capsys.readouterr().err == "error: interrupted. Run the same command again: finished work is kept.\n"
    assert command.run(stopped, options, interrupted="interrupted, all is lost.") == 3
    assert capsys.readouterr().err == "error: interrupted, all is lost.\n"


def test_sigterm_ends_a_command_as_ctrl_c_does(capsys: pytest.CaptureFixture) -> None:
    """Batch systems send it before they kill; the shell of the process keeps its own handler."""
    before = signal.getsignal(signal.SIGTERM)

    def stopped(_: Any) -> int:
        os.kill(os.getpid(), signal.SIGTERM)
        return 0

    assert command.run(stopped, argparse.Namespace(debug=False)) == 3
    assert capsys.readouterr().err == "error: interrupted. Run the same command again: finished work is kept.\n"
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_damaged_shard_of_a_half_built_store_is_named(tmp_path: Path) -> None:
    half = stores.build(tmp_path / "half", done=2)
    (half.path / "origin" / "c" / "1" / "0").write_bytes(b"\0" * 68)
    with pytest.raises(StoreError, match=r"origin/c/1/0: marked as done, but damaged\. Delete it and run"):
        facts.facts(half.path)


@pytest.mark.parametrize(
    ("lon", "west", "east"),
    [
        ([10.0, 30.0, 20.0], 10.0, 30.0),
        ([179.0, -178.0, 175.0], 175.0, 182.0),
        ([-178.0, -170.0], -178.0, -170.0),
        ([42.5], 42.5, 42.5),
        ([-180.0, 180.0], -180.0, -180.0),
        ([-30.0, 10.0], -30.0, 10.0),
    ],
)
def test_regions_take_the_short_way_round(lon: list[float], west: float, east: float) -> None:
    found = facts.Region.of(np.array([[x, -3.0 + k] for k, x in enumerate(lon)]))
    assert (found.west, found.east) == pytest.approx((west, east))
    assert (found.south, found.north) == (-3.0, -4.0 + len(lon))


def test_facts_of_a_sample(seam: stores.Built) -> None:
    opened = ShardStore(seam.path)
    found = facts.sample(opened, 6)
    values = {name: array[6] for name, array in seam.values.items()}
    track = values["origin"] + values["positions"].astype(float)
    assert found.drifter == seam.drifters[1]
    assert (found.split, found.drogue, found.status) == ("train", "lost", "usable")
    assert found.origin == tuple(values["origin"])
    assert found.track_km == pytest.approx(geo.separation(track[1:], track[:-1]).sum() / 1e3)
    assert 0 < found.net_km <= found.track_km
    assert found.net_km == pytest.approx(float(geo.separation(track[0], track[-1])) / 1e3)
    assert found.window.east - found.window.west == pytest.approx(15 * 0.25)
    assert found.window.north - found.window.south == pytest.approx(11 * 0.25)
    sea = values["currents"][0] != schema.FILL
    assert found.land_share == pytest.approx(1 - sea.all(axis=0).mean())
    speed = np.hypot(*values["currents"].astype(float))[sea] * schema.SCALE
    assert found.current_range == pytest.approx((speed.min(), speed.max()))
    start = np.datetime64(int(values["start_time"]), "s")
    assert (found.start, found.end) == (f"{start}Z", f"{start + np.timedelta64(5, 'D')}Z")
    json.dumps(found.as_json(), allow_nan=False)


def test_an_unusable_sample_says_why(built: stores.Built) -> None:
    found = facts.sample(ShardStore(built.path), 1)
    assert (found.split, found.status) == (None, "currents missing at times in the window")
    assert "split     none" in show.render_sample(found)


@pytest.mark.parametrize("index", [23, -1, 10**12])
def test_samples_that_are_not_there(built: stores.Built, index: int) -> None:
    with pytest.raises(StoreError, match=rf"no sample {index}; its samples are 0 to 22"):
        facts.sample(ShardStore(built.path), index)


# Pages


def test_the_page_fits_and_says_it(built: stores.Built) -> None:
    page = show.render(facts.facts(built.path))
    assert max(len(line) for line in page.splitlines()) <= show.WIDTH
    for text in (built.held.digest, "23", "7 levels", "12 x 16 cells", "30.", "°E", "°S", "train", "drifters.nc"):
        assert text in page


def test_the_funnel_is_aligned() -> None:
    stages = [
        Stage("fixes", "fixes", 1_234_567, {"not a position": 12, "speed above 3 m/s": 3456}),
        Stage("inside the record", "segments", 89, {}),
        Stage("samples", "samples", 88, {"a very long reason " * 8: 1}),
    ]
    lines = show.render_funnel(stages).splitlines()
    assert lines[0].split() == ["stage", "kept", "dropped", "reason"]
    assert max(map(len, lines)) <= show.WIDTH
    ends = [re.search(r"(1,234,567|89|88) ", line) for line in (lines[1], lines[3], lines[4])]
    assert len({match.end() for match in ends if match}) == 1
    assert lines[1].index("not a position") == lines[2].index("speed above") == lines[0].index("reason")
    assert "3,456" in lines[2]


def test_no_name_steers_the_terminal(tmp_path: Path) -> None:
    built = stores.build(tmp_path / "store")
    stores.rewrite(built.path, lambda tree: tree.update(name="\x1b[2Jgone", notes=["a\x07b\nc" + "x" * 300]))
    page = show.render(facts.facts(built.path))
    assert "\x1b" not in page
    assert "\x07" not in page
    assert max(len(line) for line in page.splitlines()) <= show.WIDTH


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (geo.longitude_text(190.0), "170°W"),
        (geo.longitude_text(-200.0), "160°E"),
        (geo.longitude_text(180.0), "180°"),
        (geo.longitude_text(0.0), "0°"),
        (geo.longitude_text(359.999), "0°"),
        (geo.latitude_text(-36.25), "36.25°S"),
        (geo.latitude_text(0.0), "0°"),
        (geo.latitude_text(-0.001), "0°"),
    ],
)
def test_degrees(text: str, expected: str) -> None:
    assert text == expected


def _drawn(path: Path) -> None:
    """The figure has a page's size and more than one colour."""
    pixels = imread(path)
    assert min(pixels.shape[:2]) > 300
    assert np.ptp(pixels[..., :3]) > 0.5


# The command


def _run(capsys: pytest.CaptureFixture, *arguments: Any) -> tuple[int, str, str]:
    code = inspector.main([str(argument) for argument in arguments])
    return code, *capsys.readouterr()


def test_the_command_shows(built: stores.Built, capsys: pytest.CaptureFixture) -> None:
    code, out, _ = _run(capsys, "show", built.path)
    assert (code, out) == (0, show.render(facts.facts(built.path)) + "\n")
    code, out, _ = _run(capsys, "show", built.path, "--json")
    assert (code, json.loads(out)["digest"]) == (0, built.held.digest)


def test_the_command_verifies(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    built = stores.build(tmp_path / "store")
    code, out, _ = _run(capsys, "verify", built.path)
    assert code == 0
    assert out.startswith("ok: ")
    (built.path / "drogue" / "c" / "1").unlink()
    code, out, _ = _run(capsys, "verify", built.path)
    assert code == 1
    assert "drogue/c/1: missing" in " ".join(out.split())
    code, out, _ = _run(capsys, "verify", built.path, "--json")
    assert (code, json.loads(out)["ok"]) == (1, False)


def test_the_command_shows_a_sample(built: stores.Built, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    code, out, _ = _run(capsys, "sample", built.path, 5, "--plot", tmp_path / "five.png")
    assert code == 0
    for line in ("sample    5", f"drifter   {built.drifters[0]}, drogue on", "track", "m/s", "% of the window"):
        assert line in out
    _drawn(tmp_path / "five.png")
    code, out, _ = _run(capsys, "sample", built.path, 5, "--json")
    assert json.loads(out)["index"] == 5


def test_the_command_plots(built: stores.Built, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    code, out, _ = _run(capsys, "plot", built.path, "--out", tmp_path / "figures", "--json")
    assert code == 0
    assert all(Path(path).exists() for path in json.loads(out)["figures"])


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("sample", "{store}", 99), 1, "no sample 99"),
        (("sample", "{store}", 1, "--plot", "{store}/a.png"), 2, "lies inside the store"),
        (("plot", "{store}", "--out", "{store}/figures"), 2, "lies inside the store"),
        (("plot", "{store}", "--out", "{tmp}", "--split", "dev"), 1, "is not a split"),
        (("show", "{tmp}/nowhere"), 1, "no such store"),
        (("sample", "{half}", 0), 1, "unfinished"),
        (("plot", "{half}", "--out", "{tmp}/x"), 1, "unfinished"),
    ],
)
def test_errors_are_one_message(
    built: stores.Built, tmp_path: Path, capsys: pytest.CaptureFixture, arguments: tuple, code: int, message: str
) -> None:
    half = stores.build(tmp_path / "half", done=1)
    filled = [str(a).format(store=built.path, tmp=tmp_path, half=half.path) for a in arguments]
    got, out, err = _run(capsys, *filled)
    assert (got, out) == (code, "")
    assert err.startswith("error: ")
    assert message in err
    assert len(err.splitlines()) == 1
    assert verify(built.path).ok


@pytest.mark.parametrize("arguments", [[], ["show"], ["sample", "x", "one"], ["plot", "x"], ["dance"]])
def test_wrong_usage(arguments: list[str], capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as leaving:
        inspector.main(arguments)
    assert leaving.value.code == 2
    assert "usage: drift-inspect" in capsys.readouterr().err


@pytest.mark.parametrize("action", [[], ["show"], ["verify"], ["sample"], ["plot"]])
def test_help_has_an_example(action: list[str], capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        inspector.main([*action, "--help"])
    page = capsys.readouterr().out
    assert f"example:\n  drift-inspect {''.join(action)}" in page
    assert "exit codes: 0 ok, 1" in page
