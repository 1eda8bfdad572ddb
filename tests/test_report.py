"""The page of a run: what it says, when it warns, that it stands alone and that it is always the same."""

import json
import re
import subprocess
import sys
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.collections import LineCollection
from matplotlib.colors import to_hex

from driftcal.shared.errors import ConfigError
from driftcal.shared.geo import METRES_PER_DEGREE
from driftcal.shared.store.reader import ShardStore
from driftcal.shared.store.schema import FILL, SCALE
from driftcal.train.evaluation.evaluation import ABOVE, Evaluation
from driftcal.train.report import evaluation_text, figures_evaluation, figures_run, numbers, report
from driftcal.train.run import run_folder
from tests import stores
from tests.results import CS, EXAMINED, evaluation, evaluation_tree, mean, result, result_tree

PNG = b"\x89PNG\r\n\x1a\n"
PIECES = {"convergence", "examples", "scores", "spread", "reliability", "ranks", "drifters"}


def metrics(n: int) -> list[dict[str, Any]]:
    """`n` steps of descent, then a final pass and a curvature."""
    rng = np.random.default_rng(1)
    phases = ["epoch 1 of 1"] * n + ["final pass 1"] * 3 + ["curvature"] * 4
    cs = [0.1 + (CS - 0.1) * min(1, 2 * k / n) for k in range(n)] + [0.33] * 3 + [0.3, 0.3, 0.365, 0.365]
    loss = (1.0 + 0.1 * rng.standard_normal(len(phases))).tolist()
    return [
        {"step": k + 1, "phase": phase, "loss": loss[k], "cs": cs[k]} for k, phase in enumerate(phases)
    ]  # fmt: skip


def examples(store: ShardStore, n: int) -> dict[str, np.ndarray]:
    """Examples whose ensembles are the observed track with noise."""
    rng = np.random.default_rng(2)
    picked = np.arange(n)
    raw = store.currents.read(picked)
    positions = store.positions.read(picked).astype(np.float64)
    track = store.labels["origin"][picked][:, None] + positions
    noise = 0.02 * rng.standard_normal((n, 20, *track.shape[1:])).cumsum(axis=2)
    return {
        "sample": picked,
        "drifter": np.array([store.drifters[k] for k in store.labels["drifter"][picked]]),
        "start_time": store.labels["start_time"][picked],
        "corner": store.labels["window_corner"][picked],
        "step": np.array([store.layout.lon_step, store.layout.lat_step]),
        "currents": np.where(raw == FILL, np.nan, raw * SCALE).astype(np.float32),
        "track": track,
        "ensemble": track[:, None] + noise - noise[:, :, :1],
    }


def make(out: Path, store: ShardStore, n: int = 4, steps: int = 9, error: float | None = 1.25, **change: Any) -> Path:
    """A finished run in the new folder `out`."""
    out.mkdir()
    (out / run_folder.RESULT).write_text(json.dumps(result_tree(store, **change)))
    (out / run_folder.CONFIG).write_text(json.dumps({"seed": 7, "ensemble": {"members": 20}}))
    (out / run_folder.METRICS).write_text("".join(json.dumps(line) + "\n" for line in metrics(steps)))
    (out / run_folder.EVALUATION).write_text(json.dumps(evaluation_tree(store, error)))
    run_folder.keep_examples(out, examples(store, n))
    run_folder.keep_training_data(out, store)
    return out


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ShardStore:
    """On both sides of the antimeridian."""
    return ShardStore(stores.build(tmp_path_factory.mktemp("s") / "small", 12, centre=(179.6, -20.0)).path)


@pytest.fixture(scope="module")
def twin(tmp_path_factory: pytest.TempPathFactory) -> ShardStore:
    path = stores.build(tmp_path_factory.mktemp("t") / "twin", 9, n_drifters=4).path
    stores.rewrite(path, lambda tree: tree["recipe"].update(synthetic={"cs": 0.3, "folder": "made"}))
    return ShardStore(path)


@pytest.fixture(scope="module")
def run(store: ShardStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = make(tmp_path_factory.mktemp("r") / "run", store)
    report.write(out, store)
    return out


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draws no figure, where a test is not about them."""
    stub = PNG + b"\0\0\0\rIHDR" + (700).to_bytes(4) * 2
    monkeypatch.setattr(figures_run, "render", lambda make: {"png": stub, "pdf": b"%PDF"})


def text(out: Path) -> str:
    return (out / run_folder.PAGE).read_text(encoding="utf-8")


def test_a_page_needs_no_jax() -> None:
    code = "import sys, driftcal.train.report.report; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_page_stands_alone(run: Path) -> None:
    page = text(run)
    assert page.startswith("<!DOCTYPE html>")
    assert page.rstrip().endswith("</html>")
    assert re.search(r"https?:|//\w|<script|<link|@import|url\(|\son\w+=", re.sub(r"base64,[\w+/=]+", "", page)) is None
    sources = re.findall(r'src="([^"]{0,22})', page)
    assert sources == ["data:image/png;base64,"] * 7
    assert re.findall(r"Figure (\d)\.", page) == list("1234567")


@pytest.mark.usefixtures("quick")
def test_figures_are_numbered_as_they_come(store: ShardStore, tmp_path: Path) -> None:
    out = make(tmp_path / "run", store, **EXAMINED)
    report.write(out, store)
    assert re.findall(r"Figure (\d)\.", text(out)) == list("123456789")


def test_page_says_the_numbers(run: Path, store: ShardStore) -> None:
    page = text(run)
    for said in (
        "C<sub>s</sub> from 0.302 to 0.343 (90 % interval), best 0.322 ± 0.012",
        "90 % interval 0.302 to 0.343",
        "0.012, clustered by drifter",
        "K = C_s dx dy sqrt(u_x^2",
        "mean 0.9264 [dimensionless]",
        "29 samples of 6 drifters, split test, not trained on",
        "15.3 ± 2.1",
        "energy score [km]",
        "liu skill [-]",
        store.manifest.digest,
        "drogue lost",
        "members: 20",
        "1,234 samples/s",
        "sha256 " + store.manifest.digest[:12],
    ):
        assert said in page, said
    assert "Warning" not in page
    assert "twin experiment" not in page


def test_figures_are_kept_for_papers(run: Path) -> None:
    kept = {file.name: file.read_bytes() for file in (run / run_folder.FIGURES).iterdir()}
    assert set(kept) == {f"{name}.{ending}" for name in PIECES for ending in ("png", "pdf")}
    assert all(content.startswith(PNG if name.endswith("png") else b"%PDF") for name, content in kept.items())


def test_same_input_same_bytes(run: Path, store: ShardStore, tmp_path: Path) -> None:
    again = make(tmp_path / "elsewhere", store)
    report.write(again, store)
    for file in [run_folder.PAGE, *(f"{run_folder.FIGURES}/{n}.{e}" for n in PIECES for e in ("png", "pdf"))]:
        assert (again / file).read_bytes() == (run / file).read_bytes(), file


@pytest.mark.usefixtures("quick")
def test_missing_pieces_say_what_to_run(store: ShardStore, tmp_path: Path) -> None:
    out = make(tmp_path / "bare", store)
    for name in (run_folder.METRICS, run_folder.EVALUATION, run_folder.EXAMPLES):
        (out / name).unlink()
    report.write(out, store)
    page = text(out)
    assert page.count('class="missing"') == 3
    assert "<code>drift-train run STORE --out RUN</code>" in page
    assert "<code>drift-train evaluate RUN STORE --split test</code>" in page
    assert page.count("<img") == 1
    assert "0.322 ± 0.012" in page


def test_no_run_and_damaged_files_are_refused(store: ShardStore, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"is not a finished run: it has no result\.json"):
        report.summary(tmp_path)
    out = make(tmp_path / "damaged", store)
    content = (out / run_folder.EXAMPLES).read_bytes()
    (out / run_folder.EXAMPLES).write_bytes(content[: len(content) // 2])
    with pytest.raises(ConfigError, match=r"examples\.npz cannot be read \(.*Remove it, and run drift-train evaluate"):
        report.summary(out)
    (out / run_folder.METRICS).write_text('{"step": 1')
    with pytest.raises(ConfigError, match=r"metrics\.jsonl cannot be read \(.*Remove it, or train again"):
        report.summary(out)
    (out / run_folder.CONFIG).unlink()
    with pytest.raises(ConfigError, match=r"is not a finished run: it has no config\.json"):
        report.summary(out)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        (run_folder.RESULT, "{}", r"result\.json lacks cs, cs_standard_error, .*, function\. Train again"),
        (run_folder.RESULT, "[1]", r"result\.json: expected keys and values, found list"),
        (run_folder.CONFIG, '{"sed": 1}', r"config\.json: unknown key 'sed'"),
        (run_folder.METRICS, '{"step": 1, "phase": "epoch", "cs": 1}', r"metrics\.jsonl, line 1 lacks loss\. Remove"),
        (run_folder.EVALUATION, "{}", r"evaluation\.json lacks split, fit, store, "),
        (run_folder.DATA, '{"recipe": {}, "funnel": []}', r"training_data\.json lacks trained_drifters\. Remove"),
    ],
)
def test_a_missing_key_is_named(store: ShardStore, tmp_path: Path, name: str, content: str, said: str) -> None:
    out = make(tmp_path / "run", store)
    (out / name).write_text(content)
    with pytest.raises(ConfigError, match=said):
        run_folder.read(out)


def test_every_key_of_a_result_is_needed(store: ShardStore, tmp_path: Path) -> None:
    out = make(tmp_path / "run", store)
    for key in result_tree(store):
        (out / run_folder.RESULT).write_text(json.dumps({k: v for k, v in result_tree(store).items() if k != key}))
        with pytest.raises(ConfigError, match=rf"result\.json lacks {key}\."):
            run_folder.read(out)


@pytest.mark.parametrize("cs", [0, -0.1, float("nan"), "0.3", None, True])
def test_a_constant_that_is_none_is_refused(store: ShardStore, tmp_path: Path, cs: Any) -> None:
    out = make(tmp_path / "run", store, cs=cs)
    with pytest.raises(ConfigError, match=r"result\.json: cs is .*, expected a number above 0"):
        run_folder.read(out)


def test_one_sample_of_one_drifter(tmp_path: Path) -> None:
    one = ShardStore(stores.build(tmp_path / "one", 1, n_drifters=3, n_unusable=0).path)
    unknown = {"cs_standard_error": None, "cs_interval_90": None, "n_drifters": 1, "n_clusters": 1}
    out = make(tmp_path / "run", one, n=1, steps=1, error=None, **unknown)
    report.write(out, one)
    page = text(out)
    assert "C<sub>s</sub> = 0.322, without an interval<" in page
    assert "no standard error: a single drifter" in page
    assert page.count("<img") == 7
    assert ">15.3<" in page
    assert "standard error: none" in report.summary(out)


def test_scores_that_should_not_be_trusted_are_warned_of(store: ShardStore) -> None:
    sound = evaluation(store)
    assert evaluation_text.warnings(sound) == []
    few = evaluation_text.warnings(evaluation(store, n_drifters=1, n_clusters=1))
    assert len(few) == 1
    assert few[0].startswith("1 drifter: too few to judge by")
    elsewhere = evaluation_text.warnings(evaluation(store, run_store="0" * 64))
    assert "not the one that the constant was fitted to (000000000000)" in elsewhere[0]
    scores = evaluation_tree(store)["scores"]
    scores["initial constant"][ABOVE] = mean(-1.7, 0.26)
    beaten = evaluation_text.warnings(evaluation(store, scores=scores))
    assert "initial constant scored better than the calibrated constant" in beaten[0]
    scores["initial constant"][ABOVE] = mean(-0.3, 0.26)
    assert evaluation_text.warnings(evaluation(store, scores=scores)) == []


WIDE = {
    "cs": {
        "value": CS,
        "trained": float(np.log(CS)),
        "standard_error": 0.15,
        "interval_90": [0.12, 0.8],
        "start": 0.1,
        "trained_as": "logarithm",
        "at_bound": False,
    }
}
DUE = {
    "not converged": {"converged": False},
    "no standard error": {"cs_standard_error": None, "cs_interval_90": None},
    "the objective liu is not proper": {"objective": "liu", "proper": False},
    "hardly known: the 90 % interval of C_s is 0.12 to 0.8, a factor of 6.7": {"parameters": WIDE},
    "1.2 % of the members left": {"escaped_share": 0.012},
    "2 samples gave no finite loss and gradient and were left out: 4, 9.": {"poisoned_samples": [4, 9]},
}


@pytest.mark.parametrize("said", DUE)
def test_a_warning_exactly_when_due(store: ShardStore, said: str) -> None:
    assert report.warnings(result(store)) == []
    assert report.warnings(result(store, escaped_share=0.01)) == []
    (found,) = report.warnings(result(store, **DUE[said]))
    assert found.startswith(said)


@pytest.mark.usefixtures("quick")
def test_warnings_stand_on_page_and_in_summary(store: ShardStore, tmp_path: Path) -> None:
    # a wide interval contradicts having none
    due = {warning: change for warning, change in DUE.items() if "parameters" not in change}
    out = make(tmp_path / "bad", store, **{k: v for change in due.values() for k, v in change.items()})
    for name in (run_folder.EVALUATION, run_folder.EXAMPLES, run_folder.METRICS):
        (out / name).unlink()
    report.write(out, store)
    assert text(out).count("<b>Warning:</b>") == len(due)
    lines = report.summary(out).splitlines()
    assert len(lines) <= 16
    assert [line.startswith("WARNING: ") for line in lines] == [False] * (len(lines) - len(due)) + [True] * len(due)


def test_summary_is_short_and_names_units(run: Path) -> None:
    said = report.summary(run)
    assert len(said.splitlines()) <= 15
    assert said.startswith("C_s from 0.302 to 0.343 (90 % interval), best 0.322 ± 0.012 in K = C_s dx dy")
    assert "[m2/s]" in said
    assert "converged: yes" in said
    assert "3 (0.04 %)" in said
    assert "WARNING" not in said
    assert "twin" not in said


def contradicted() -> dict[str, Any]:
    """An examination in which a check is rejected."""
    memory = EXAMINED["model_checks"]["memory"]
    said = "the drifters keep their velocity for about 2 days; white noise does not"
    rejected = memory | {"rejected": True, "p_value": 1e-6, "p_adjusted": 2e-6, "finding": said}
    verdict = {"model_supported": False, "model_verdict": said}
    return EXAMINED | verdict | {"model_checks": {"memory": rejected, "kappa": memory}}


@pytest.mark.usefixtures("quick")
def test_a_wrong_model_comes_before_its_number(store: ShardStore, tmp_path: Path) -> None:
    out = make(tmp_path / "run", store, **contradicted())
    page, said = report.write(out, store).read_text(), report.summary(out).splitlines()
    wrong = "THE MODEL IS WRONG FOR THESE DRIFTERS: the drifters keep their velocity for about 2 days"
    assert said[0].startswith(wrong)
    assert said[1].startswith("C_s from 0.302 to 0.343")
    assert page.index(wrong) < page.index("C<sub>s</sub> from 0.302")
    assert wrong in page[page.index("To cite") :]
    assert report.headline(out).splitlines()[0].startswith(wrong)


@pytest.mark.usefixtures("quick")
def test_a_model_that_is_not_contradicted_follows_its_number(store: ShardStore, tmp_path: Path) -> None:
    out = make(tmp_path / "run", store, **EXAMINED)
    said = report.summary(out).splitlines()
    assert said[0].startswith("C_s from 0.302 to 0.343")
    assert said[1] == "model: none of 2 checks contradicts the model"
    assert "WRONG" not in report.write(out, store).read_text()


@pytest.mark.usefixtures("quick")
def test_the_true_constant_of_a_twin_experiment(twin: ShardStore, tmp_path: Path) -> None:
    out = make(tmp_path / "run", twin)
    (out / run_folder.EXAMPLES).unlink()
    report.write(out, twin)
    said = "true C_s of this twin experiment: 0.3; found minus true: +7.2 %, +1.8 standard errors"
    assert said in report.summary(out)
    assert said.split(": ", 1)[1] in text(out)
    assert len(report.summary(out).splitlines()) <= 15


def test_the_truth_is_a_line(store: ShardStore) -> None:
    def colours(truth: float | None) -> set[str]:
        axes = figures_run.convergence(metrics(9), result(store), truth, "m").axes
        return {to_hex(line.get_color()) for ax in axes for line in ax.lines}

    assert colours(0.3) - colours(None) == {figures_run.TRUTH.lower()}


@pytest.mark.usefixtures("quick")
def test_written_with_another_store_the_training_data_stay(twin: ShardStore, store: ShardStore, tmp_path: Path) -> None:
    out = make(tmp_path / "run", twin)
    for name in (run_folder.EXAMPLES, run_folder.METRICS):
        (out / name).unlink()
    report.write(out, twin)
    drawn = (out / "figures" / "drifters.png").read_bytes() + b"first"
    (out / "figures" / "drifters.png").write_bytes(drawn)
    (out / run_folder.EVALUATION).write_text(json.dumps(evaluation_tree(store)))
    report.write(out, store)
    assert "true C_s of this twin experiment" in report.summary(out)
    assert (out / "figures" / "drifters.png").read_bytes() == drawn
    assert text(out).count("<img") == 5
    assert "split test, not trained on, of another store" in text(out)


@pytest.mark.usefixtures("quick")
def test_scores_on_the_training_split_are_called_fit(store: ShardStore, tmp_path: Path) -> None:
    out = make(tmp_path / "run", store)
    for name in (run_folder.EXAMPLES, run_folder.METRICS):
        (out / name).unlink()
    (out / run_folder.EVALUATION).write_text(json.dumps(evaluation_tree(store, split="train")))
    report.write(out, store)
    assert "fit, not skill" in text(out)


@pytest.mark.usefixtures("quick")
def test_what_was_not_scored_is_said(store: ShardStore, tmp_path: Path) -> None:
    out = make(tmp_path / "run", store)
    left_out = {"n_samples": 1300, "drifters": ["<b>", *map(str, range(11))]}
    change = {"n_split": 5000, "poisoned_samples": [4, 9], "trained_drifters_left_out": left_out}
    found = evaluation(store, **change)
    (out / run_folder.EVALUATION).write_text(json.dumps(found.as_json()))
    report.write(out, store)
    first = "29 samples (of 5,000, spread evenly) of 6 drifters, split test, not trained on"
    warned = (
        "1,300 samples of 12 drifters that the run was trained on were left out: <b>, 0, 1, 2, 3, 4, 5, 6, 7, 8, ...",
        "2 samples gave no finite score and were left out: 4, 9.",
    )
    assert evaluation_text.table(found).startswith(first)
    for said in (first, *warned):
        assert escape(said) in text(out)
    assert [said in evaluation_text.table(found) for said in warned] == [True, True]
    assert "spread evenly)" not in evaluation_text.table(evaluation(store, **(change | {"n_split": 1331})))
    assert "WARNING" not in evaluation_text.table(evaluation(store))


def test_names_from_a_store_cannot_write_the_page(tmp_path: Path, store: ShardStore) -> None:
    out = make(tmp_path / "run", store, store_name="<script>alert(1)</script>")
    for name in (run_folder.EVALUATION, run_folder.METRICS):
        (out / name).unlink()
    found = examples(store, 2)
    run_folder.keep_examples(out, found | {"drifter": np.array(["$\\frac{1", "漂流ブイ"])})
    report.write(out, store)
    assert "<script" not in text(out)


def test_panels_are_cropped_around_the_tracks_across_the_antimeridian(store: ShardStore) -> None:
    found = examples(store, 4)
    figure = figures_run.examples(found)
    assert any(found["track"][k][:, 0].max() > 180 or found["track"][k][:, 0].min() < -180 for k in range(4))
    for k, ax in enumerate(figure.axes[:4]):
        (west, east), (south, north) = ax.get_xlim(), ax.get_ylim()
        tracks = np.concatenate([found["track"][k][None], found["ensemble"][k]])
        size = np.array([store.layout.n_lon, store.layout.n_lat]) * found["step"]
        assert west <= tracks[..., 0].min() < tracks[..., 0].max() <= east
        assert south <= tracks[..., 1].min() < tracks[..., 1].max() <= north
        assert np.all(np.array([east - west, north - south]) <= size + 1e-9)
        corner = found["corner"][k] - found["step"] / 2
        assert np.all(corner <= np.array([west, south]) + 1e-9)


def test_kappa_of_a_pure_strain() -> None:
    # u = a x, v = -a y: sqrt(u_x^2 + v_y^2) = a sqrt(2) everywhere, but for the little that the meridians narrow
    step, rate = np.array([0.2, 0.25]), 1e-5
    lat = -30 + step[1] * np.arange(9)
    dx, dy = (METRES_PER_DEGREE * s for s in (step[0] * np.cos(np.radians(lat)), step[1]))
    u = rate * dx[:, None] * (np.arange(12) - 5.5)
    v = np.broadcast_to(-rate * dy * np.arange(9)[:, None], u.shape)
    found = {"step": step, "corner": np.array([[10.0, -30.0]]), "currents": np.stack([u, v])[None, :, None]}
    expected = np.sqrt(2) * rate * dx[1:-1] * dy
    assert figures_run.kappa(found) == pytest.approx(np.percentile(np.repeat(expected, 10), [5, 50, 95]), rel=2e-3)
    assert figures_run.kappa(found | {"currents": np.full((1, 2, 3, 9, 12), np.nan)}) is None


def test_whiskers_are_the_intervals_of_the_table(store: ShardStore) -> None:
    """A t interval of few drifters, and none of a single one."""
    few = {"mean": 10.0, "standard_error": 1.0, "interval_90": [7.9, 12.1]}
    tree = evaluation_tree(store)
    tree["scores"]["calibrated"]["energy_score_km"] = few
    tree["scores"]["no motion"]["energy_score_km"] = mean(10.0, None)
    scores = Evaluation.from_json(tree).scores
    (axes,) = figures_evaluation.whiskers({name: scores[name] for name in ("calibrated", "no motion")}).axes
    ends = [bars.get_segments()[0][:, 0] for bars in axes.collections if isinstance(bars, LineCollection)]
    np.testing.assert_allclose(ends, [[7.9, 12.1], [10.0, 10.0]])
    assert axes.get_xlabel() == "energy score [km], smaller is better"


@pytest.mark.parametrize(
    ("value", "error", "said"),
    [
        (0.30213, 0.0042, "0.302 ± 0.004"),
        (0.30213, 0.0142, "0.302 ± 0.014"),
        (0.30213, None, "0.302"),
        (10.04, None, "10.0"),
        (123.4, 31.0, "123 ± 31"),
        (0.5, 0.0999, "0.50 ± 0.10"),
    ],
)
def test_digits(value: float, error: float | None, said: str) -> None:
    assert numbers.measured(value, error) == said


def test_a_long_run_shows_its_running_mean(store: ShardStore) -> None:
    short, long = (figures_run.convergence(metrics(n), result(store), None, "m").axes[0] for n in (30, 3000))
    assert len(long.lines) == len(short.lines) + 1


def test_a_parameter_at_its_bound_is_said_to_be_zero_with_its_interval(store: ShardStore) -> None:
    parameter = {"value": 0.0, "trained": -11.5, "standard_error": None, "interval_90": [0.0, 0.012], "start": 0.1}
    found = result(
        store,
        cs=0.0,
        log_cs=-11.5,
        cs_standard_error=None,
        log_cs_standard_error=None,
        cs_interval_90=[0.0, 0.012],
        converged=False,
        convergence="C_s is at its bound: zero fits as well as anything",
        parameters={"cs": parameter | {"trained_as": "logarithm", "at_bound": True}},
    )
    assert numbers.found(found) == "C_s = 0 (below 0.012 at 95 %)"
    said = report.warnings(found)
    assert said[0].startswith(
        "C_s is at its bound: zero fits as well as anything (one-sided 95 % interval: 0 to 0.012)"
    )
    assert not any("not converged" in text or "no standard error" in text for text in said)


@pytest.mark.parametrize(
    ("above", "said"),
    [
        (0.05, "0.05 above that at the result. The lower of the two stands"),
        (-0.05, "0.05 below that at the result. Train again with initial_cs=2,"),
    ],
)
def test_another_minimum_is_said_with_its_interval_and_what_to_do(store: ShardStore, above: float, said: str) -> None:
    least = {"value": 2.0, "interval_90": [1.5, 2.6], "score": 0.95, "score_above_result": above}
    examined = EXAMINED | {"minima": [least]}
    text = next(text for text in report.warnings(result(store, **examined)) if "another minimum" in text)
    assert "at C_s = 2 (1.5 to 2.6)" in text
    assert said in text
    few = examined | {"profile": EXAMINED["profile"] | {"n_clusters": 6}}
    assert not any("another minimum" in text for text in report.warnings(result(store, **few)))


def test_the_minimum_of_the_result_is_no_result_of_its_own(run: Path, store: ShardStore) -> None:
    alone = result_tree(store) | EXAMINED | {"minima": []}
    (run / run_folder.RESULT).write_text(json.dumps(alone))
    said = report.summary(run)
    assert "other minima of the score: none beyond chance (12 samples of 11 drifters, C_s from 0.1 to 1)" in said
    alone["profile"] = EXAMINED["profile"] | {"n_clusters": 6}
    (run / run_folder.RESULT).write_text(json.dumps(alone))
    assert "other minima of the score: too few to tell" in report.summary(run)
