"""What a gradient through time costs: the strategies agree, the memory is as the laws say, the models are real."""

import json
import math
from collections.abc import Iterable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from docs.examples import column as example
from docs.examples import lorenz
from driftcal.shared.errors import ConfigError
from driftcal.train.__main__ import main
from driftcal.train.fit import gradient_mode
from driftcal.train.gradient_cost import column, drift_model, figure, fitted_laws, measurement, recommendation, study
from driftcal.train.gradient_cost.command import memory_of, steps_of
from driftcal.train.gradient_cost.strategies import STRATEGIES, forward_along
from driftcal.train.gradient_cost.study import Cell, Study
from driftcal.train.gradient_cost.timed_model import Model, load
from tests.commands import refused

pytestmark = pytest.mark.usefixtures("usual_dtypes")  # models of a study are written as users write them

MODULE = """
import jax.numpy as jnp
from driftcal.train.gradient_cost import Model

def good():
    return Model(lambda s, p, k: s + p * jnp.cos(s), jnp.ones(3), jnp.asarray(0.1), lambda s: s.sum())

def whole_numbers():
    return good()._replace(state=jnp.arange(3))

def grows():
    return good()._replace(step=lambda s, p, k: jnp.concatenate([s, s]))

def no_scalar():
    return good()._replace(loss=lambda s: s)

def not_a_model():
    return 3

def fails():
    raise RuntimeError("no such forcing")
"""


def gradient(model: Model, name: str, n: int) -> np.ndarray:
    run = STRATEGIES[name].gradient(model, n)
    run = jax.jit(run) if STRATEGIES[name].compiled else run
    return np.asarray(run(model.parameters, model.state), np.float64)


def apart(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


def taught(levels: int = 12) -> Model:
    return column.column(levels).flat()


def agree(model: Model, exact: np.ndarray, n: int, names: Iterable[str], within: float) -> None:
    for name in names:
        assert apart(gradient(model, name, n), exact) < within, name


# 83 steps: segments of 9 leave 2 over, eight parts of 10 leave 3, and eight of 1 of those leave 2; unrolled, 83 steps
# take a minute to compile
@pytest.mark.parametrize(("n", "names"), [(83, [name for name in STRATEGIES if name != "unrolled"]), (7, ["unrolled"])])
def test_all_strategies_agree_on_the_gradient(n: int, names: list[str]) -> None:
    with jax.enable_x64(True):
        double = lorenz.build().flat()
        exact = gradient(double, "forward", n)
        agree(double, exact, n, names, 1e-9)
    single = lorenz.build().flat()
    assert single.parameters.dtype == np.float32
    agree(single, exact, n, names, 1e-4)


def column_gradient(n: int) -> np.ndarray:
    """By central differences in float64; none of the five derivatives is zero."""
    model = taught()
    loss = jax.jit(STRATEGIES["scan"].model(model, n))
    p = np.asarray(model.parameters)
    expected = np.array([(loss(p + h, model.state) - loss(p - h, model.state)) / 2e-5 for h in 1e-5 * np.eye(5)])
    assert (np.abs(expected) > 1e-7).all()
    return expected


def test_all_five_derivatives_of_the_column_are_real() -> None:
    with jax.enable_x64(True):
        expected = column_gradient(11)
        exact = gradient(taught(), "forward", 11)
        np.testing.assert_allclose(exact, expected, rtol=1e-6)
        agree(taught(), exact, 11, ["segments"], 1e-9)
    agree(taught(), exact, 11, ["loop", "forward"], 1e-4)


@pytest.mark.faults
@pytest.mark.parametrize("n", [19, 150])
def test_all_strategies_agree_on_the_gradient_of_the_column(n: int) -> None:
    names = [name for name in STRATEGIES if n < 50 or name != "unrolled"]
    with jax.enable_x64(True):
        exact = gradient(taught(), "scan", n)
        np.testing.assert_allclose(exact, column_gradient(n), rtol=1e-5)
        agree(taught(), exact, n, names, 1e-9)
    agree(taught(), exact, n, names, 1e-4)


def test_two_levels_of_recursion_and_a_rest_at_each_agree_with_a_scan() -> None:
    """Lorenz's equations: 611 = 8 x 76 + 3 steps, 76 = 8 x 9 + 4, 9 = 8 x 1 + 1; the loss runs along."""
    with jax.enable_x64(True):
        model = lorenz.build()
        names = sorted(model.parameters)
        model = model.flat()
        exact = gradient(model, "scan", 611)
        for name in ("recursive", "segments", "forward"):
            assert apart(gradient(model, name, 611), exact) < 1e-9, name

        def total(p: np.ndarray) -> float:
            """Numpy's own run of the same equations."""
            at, loss = np.array([1.0, -0.5, 20.0]), 0.0
            given = dict(zip(names, p, strict=True))

            def slope(x: np.ndarray) -> np.ndarray:
                return np.array(
                    [
                        given["sigma"] * (x[1] - x[0]),
                        x[0] * (given["rho"] - x[2]) - x[1],
                        x[0] * x[1] - given["beta"] * x[2],
                    ]
                )

            for _ in range(611):
                at = at + lorenz.STEP * slope(at + 0.5 * lorenz.STEP * slope(at))
                loss += lorenz.STEP * at[0] ** 2
            return loss

        p = np.asarray(model.parameters)
        differences = [(total(p + h) - total(p - h)) / 2e-6 for h in 1e-6 * np.eye(3)]
        assert apart(exact, np.array(differences)) < 1e-6


def test_memory_of_the_column_grows_as_the_laws_say() -> None:
    """100 levels, five parameters, float32: what the compiler sets aside, whatever the machine is doing."""
    model = column.column().flat()
    assert model.state.shape == (100,)
    assert model.parameters.shape == (5,)

    def memory(name: str, n: int) -> int:
        compiled = jax.jit(STRATEGIES[name].gradient(model, n)).lower(model.parameters, model.state).compile()
        analysis = compiled.memory_analysis()
        assert analysis is not None
        return analysis.temp_size_in_bytes

    few, most = memory("scan", 250), memory("scan", 1000)
    per_step = (most - few) / 750
    assert 40_000 < per_step < 50_000
    assert most == pytest.approx(1000 * per_step, rel=0.01)  # linear: nothing but what grows
    assert memory("checkpoint", 1000) < 0.05 * most
    assert memory("recursive", 1000) < 0.01 * most
    # what grows are the numbers of the steps, of which the scan makes an array
    assert memory("forward", 1000) - memory("forward", 250) <= 8 * 750


def test_the_closure_depends_on_the_state_and_the_column_conserves_heat() -> None:
    with jax.enable_x64(True):
        p = column.column().parameters
        warm = jnp.linspace(1.0, 0.0, 100) ** 3
        stratified, mixed = column.diffusivity(warm, p), column.diffusivity(-3.0 * warm, p)
        assert (np.asarray(mixed) > 2 * np.asarray(stratified)).any()
        assert (np.asarray(stratified) > 0).all()
        # the flux k dT/dz grows with the gradient, at every shear: no layers form by themselves
        gradients = jnp.linspace(-0.1, 0.3, 4001)
        profile = lambda g: jnp.arange(100) * -(g - column.GRADIENT) * column.SPACING  # noqa: E731
        flux = jax.vmap(lambda g: column.diffusivity(profile(g), p) * g)(gradients)
        assert (np.diff(np.asarray(flux), axis=0) > 0).all()
        after = column.advance(warm, p, jnp.asarray(7))
        heat = column.heat_flux(jnp.asarray(7.0)) * column.STEP / column.HEAT_CAPACITY
        assert float((after - warm).sum() * column.SPACING) == pytest.approx(float(heat), rel=1e-9)


def test_a_step_of_the_column_solves_its_implicit_equation() -> None:
    with jax.enable_x64(True):
        p = column.column().parameters
        theta = jnp.linspace(1.0, 0.0, 100) ** 3
        after = np.asarray(column.advance(theta, p, jnp.asarray(7), iterations=60))
        mixing = np.asarray(column.diffusivity(jnp.asarray(after), p))
        slope = (after[:-1] - after[1:]) / column.SPACING + column.GRADIENT
        into = np.concatenate(
            [[float(column.heat_flux(jnp.asarray(7.0))) / column.HEAT_CAPACITY], mixing * slope, [0.0]]
        )
        expected = np.asarray(theta) + column.STEP * (into[:-1] - into[1:]) / column.SPACING
        np.testing.assert_allclose(after, expected, atol=1e-12)
        default = np.asarray(column.advance(theta, p, jnp.asarray(7)))
        assert 0 < np.abs(default - after).max() < 3e-5


def test_the_tridiagonal_solve_differentiates_in_both_modes_and_maps() -> None:
    rng = np.random.default_rng(4)
    with jax.enable_x64(True):
        above, below = rng.uniform(0.1, 1.0, (2, 3, 7))
        above[:, 0] = below[:, -1] = 0.0
        right = rng.normal(size=(3, 7))

        def solve(a: jax.Array, b: jax.Array, r: jax.Array) -> jax.Array:
            return jax.lax.linalg.tridiagonal_solve(-a, 1.0 + a + b, -b, r[:, None])[:, 0]

        def dense(a: jax.Array, b: jax.Array, r: jax.Array) -> jax.Array:
            return jnp.linalg.solve(jnp.diag(1.0 + a + b) - jnp.diag(a[1:], -1) - jnp.diag(b[:-1], 1), r)

        for jacobian in (jax.jacfwd, jax.jacrev):
            found = jax.vmap(jacobian(solve, (0, 1, 2)))(above, below, right)
            wanted = jax.vmap(jax.jacfwd(dense, (0, 1, 2)))(above, below, right)
            for mine, theirs, band in zip(found, wanted, (slice(1, None), slice(None, -1), slice(None)), strict=True):
                np.testing.assert_allclose(mine[..., band], theirs[..., band], atol=1e-12)


def test_calibrating_the_closure_on_a_twin_finds_all_five_parameters(capsys: pytest.CaptureFixture[str]) -> None:
    example.main()
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[1:]]
    assert [row[0] for row in rows] == list(column.PARAMETERS)
    for _, true, start, found, percent in rows:
        off = abs(float(found) / float(true) - 1.0)
        assert off < 3.5e-2 * float(percent)
        assert off < 0.2 * abs(float(start) / float(true) - 1.0)


def test_the_drift_model_is_the_trained_simulator_and_its_gradient_real() -> None:
    with jax.enable_x64(True):
        model = drift_model.drift().flat()
        assert model.parameters.shape == (1,)
        loss = jax.jit(STRATEGIES["scan"].model(model, 30))
        ends = [float(loss(model.parameters + h, model.state)) for h in (-1e-6, 1e-6)]
        found = gradient(model, "forward", 30)
        assert found[0] == pytest.approx((ends[1] - ends[0]) / 2e-6, rel=1e-6)
        assert abs(found[0]) > 1.0
        assert apart(gradient(model, "segments", 30), found) < 1e-9
    assert model.most_steps == 7200


def test_derivatives_along_any_directions_are_products_with_the_gradient() -> None:
    with jax.enable_x64(True):
        model = taught(5)
        along = np.random.default_rng(2).normal(size=(3, 5))
        found = jax.jit(forward_along(model, 7, jnp.asarray(along)))(model.parameters, model.state)
        np.testing.assert_allclose(found, along @ gradient(model, "checkpoint", 7), rtol=1e-9)


def test_the_memory_is_that_of_a_device_of_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first of all devices may be another process's, which does not tell."""
    monkeypatch.setattr(jax, "devices", lambda: pytest.fail("asked for the devices of all processes"))
    assert gradient_mode.memory_of_device() > 2**20


def test_laws_recover_what_made_the_numbers() -> None:
    line = fitted_laws.Line.through([100, 1000, 5000], [2e4 + 412 * n for n in (100, 1000, 5000)])
    assert line is not None
    assert (line.fixed, line.each) == (pytest.approx(2e4), pytest.approx(412))
    assert line.reaches(2e9) == pytest.approx((2e9 - 2e4) / 412)
    assert line.reaches(1e4) == 0.0
    assert fitted_laws.Line.through([3, 3], [1, 2]) is None
    falling = fitted_laws.Line.through([1, 2], [5.0, 4.0])
    assert falling is not None
    assert (falling.each, falling.reaches(10)) == (0.0, math.inf)
    assert fitted_laws.Line.through([100, 1000], [0, 0]) == fitted_laws.Line(0.0, 0.0)
    assert fitted_laws.exponent([10, 100], [3.0, 300.0]) == pytest.approx(2.0)
    assert fitted_laws.predicted([10, 100], [3.0, 300.0], 1000) == pytest.approx(30_000)
    assert fitted_laws.predicted([100], [2.0], 1000) == pytest.approx(20.0)
    assert fitted_laws.predicted([10, 100], [2.0, 3.0], 1000) == pytest.approx(30.0)  # never less than in proportion
    assert fitted_laws.crossover(fitted_laws.Line(0.3, 0.25), 1.3) == pytest.approx(4.0)


def made_up(cap: int) -> Study:
    """Of 5 parameters: forward mode dearer than a scan, which fills the memory first."""

    def one(name: str, n: int, per_step: float, ratio: float) -> Cell:
        model_s = 2e-5 * n
        return Cell(
            name, n, "", 1.0, model_s, ratio * model_s, ratio, int(1e4 + per_step * n), 5, 1.0, [1.0], 1e-7, 1e-6
        )

    cells = [
        one(name, n, per_step, ratio)
        for name, per_step, ratio in (("scan", 44e3, 3.0), ("checkpoint", 400.0, 4.0), ("forward", 0.0, 6.0))
        for n in (100, 1000)
    ]
    cells.append(Cell("unrolled", 1000, "not run: would take about 5 min"))
    turned = {
        "steps": 1000,
        "model_s": 0.02,
        "reverse_s": 0.08,
        "parameters": [1, 2, 4],
        "forward_s": [0.04, 0.06, 0.1],
    }
    return Study("column", "float32", 5, "cpu", "CPU time of one core", [100, 1000], cap, 60.0, cells, turned)


def test_the_recommendation_is_the_cheapest_under_the_cap() -> None:
    assert [recommendation.best(made_up(cap)).strategy for cap in (10**9, 10**7, 10**5)] == [
        "scan",
        "checkpoint",
        "forward",
    ]
    assert recommendation.best(made_up(10**3)) is None
    assert "Try fewer steps" in recommendation.recommendation(made_up(10**3))
    said = recommendation.recommendation(made_up(10**7))
    assert "Use scan, checkpointed step" in said
    assert "4.0 times as long as the model" in said
    assert "A plain scan keeps 44 kB for every step: 44 MB for 1,000 steps, and it fills 10 MB after about 230" in said
    assert "Up to about 3, forward mode" in said
    assert "unrolled" in recommendation.table(made_up(10**7))
    assert "not run: would take about 5 min" in recommendation.table(made_up(10**7))
    panels = figure.draw(made_up(10**7)).axes
    assert panels[0].get_title() == "Memory that the gradient needs"
    assert [line.get_label() for line in panels[0].get_lines()[:3]] == [
        "scan",
        "scan, checkpointed step",
        "forward mode",
    ]


def test_a_cell_that_would_take_too_long_is_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def answer(spec: dict, limit: float | None) -> dict:
        asked.append((spec["what"], spec["steps"]))
        if spec["what"] == "check":
            return {"parameters": 1, "most_steps": 500, "device": "cpu", "on_cpu": True}
        raise study._Slow

    monkeypatch.setattr(study, "_ask", answer)
    found = study.run("column", [10, 400], ["loop"], "float32", 10**9, 1.0, False)
    assert [c.note for c in found.cells] == ["stopped after 1 s", "not run: would take about 40 s"]
    assert ("measure", 400) not in asked
    assert found.crossover is None
    with pytest.raises(ConfigError, match=r"--steps 501: the model column runs for 500 steps at most\."):
        study.run("column", [10, 501], ["loop"], "float32", 10**9, 1.0, False)


def test_compiling_counts_as_growing_only_where_it_does() -> None:
    """A cell of 8 s, 5 s of them compiling: ten times the steps take ten times the runs, and a long program."""
    found = {"compile_s": 5.0, "model_s": 0.01, "gradient_s": 0.04}
    whole, loop = (study.Spent.of(name, 8.0, found) for name in ("unrolled", "segments"))
    assert loop.growing == pytest.approx(0.35)
    assert whole.growing == pytest.approx(5.35)
    assert loop.fixed + loop.growing == whole.fixed + whole.growing == 8.0


def test_a_cell_process_is_killed_at_its_limit() -> None:
    with pytest.raises(study._Slow):
        study._ask({"what": "measure", "model": "column", "precision": "float32", "steps": 10, "strategy": "scan"}, 0.1)


def test_one_cell_says_all_there_is_to_say() -> None:
    model = lorenz.build().flat()
    truth = measurement.run(
        {"what": "reference", "model": "docs.examples.lorenz:build", "precision": "float64", "steps": 40}
    )
    found = measurement.measure(model, "loop", 40)
    assert found["ratio"] == pytest.approx(found["gradient_s"] / found["model_s"])
    assert found["compiler_bytes"] > 40 * 12  # at least the states
    assert found["loss"] == pytest.approx(truth["loss"], rel=1e-5)
    assert apart(np.array(found["gradient"]), np.array(truth["gradient"])) < 1e-4
    assert apart(np.array(truth["differences"]), np.array(truth["gradient"])) < 1e-7


def test_the_command_writes_csv_json_and_figure(tmp_path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "cost"
    options = ["--model", "docs.examples.lorenz:build", "--steps", "30,10", "--strategies", "scan", "--json"]
    assert main(["cost", *options, "--out", str(out), "--memory-cap", "2GB"]) == 0
    tree = json.loads(capsys.readouterr().out)
    assert tree == json.loads((out / "cost.json").read_text())
    assert [(c["strategy"], c["steps"], c["note"]) for c in tree["cells"]] == [("scan", 10, ""), ("scan", 30, "")]
    assert tree["memory_cap"] == 2_000_000_000
    assert tree["laws"]["scan"]["bytes_per_step"] > 12
    assert tree["recommendation"].startswith("Use scan")
    assert all(c["error"] < 1e-5 and c["difference_error"] < 1e-5 for c in tree["cells"])
    lines = (out / "cost.csv").read_text().splitlines()
    assert lines[0].startswith("model,precision,strategy,steps,note,compile_s,model_s,gradient_s,ratio,compiler_bytes")
    assert len(lines) == 3
    assert (out / "cost.png").read_bytes().startswith(b"\x89PNG")
    assert "exists and is not an empty folder. Choose another" in refused(capsys, 2, "cost", *options, "--out", out)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("good", None),
        ("whole_numbers", r"its state must be arrays of floats, and hold int"),
        ("grows", r"a step makes .*\(6,\).* of a state .*\(3,\)"),
        ("no_scalar", r"the loss must be a scalar"),
        ("not_a_model", r"not_a_model\(\) returns int, not a driftcal\.train\.gradient_cost\.Model"),
        ("fails", r"cannot call fails\(\) of mine \(RuntimeError: no such forcing\)"),
        ("absent", r"has no function called absent"),
    ],
)
def test_models_of_ones_own_are_checked(name: str, message: str | None, tmp_path, monkeypatch) -> None:
    (tmp_path / "mine.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(__import__("sys").modules, "mine", raising=False)
    if message is None:
        assert load(f"mine:{name}").parameters.shape == (1,)
    else:
        with pytest.raises(ConfigError, match=message):
            load(f"mine:{name}")


def test_options_are_read_and_refused(capsys: pytest.CaptureFixture[str], tmp_path) -> None:
    assert steps_of("1000, 100,100") == [100, 1000]
    assert (memory_of("2GB"), memory_of("1.5 GiB"), memory_of("500m")) == (2 * 10**9, 3 * 2**29, 5 * 10**8)
    assert memory_of(None) > 10**8
    out = ["--out", str(tmp_path / "new")]
    for given, message in (
        (["--steps", "0"], "--steps '0': expected whole numbers from 1"),
        (["--memory-cap", "much"], "--memory-cap 'much': expected a size with its unit, such as"),
        (["--strategies", "scan,magic"], "--strategies 'magic': expected some of loop, unrolled"),
        (["--limit", "0"], "--limit 0.0: expected a positive number"),
        (["--model", "column.py"], "--model 'column.py': expected column or drift, or module:function"),
    ):
        assert message in refused(capsys, 2, "cost", *given, *out)
    assert not (tmp_path / "new").exists()
