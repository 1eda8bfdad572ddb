"""Dynamics that users write: equal to the built-in ones where they should be, well mixed, and every mistake told."""

import json
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import yaml

from docs.examples.background import SmagorinskyBackground
from driftcal.shared.errors import ConfigError
from driftcal.shared.geo import METRES_PER_DEGREE
from driftcal.shared.settings import build
from driftcal.train.__main__ import main
from driftcal.train.fit.gradient_mode import choose
from driftcal.train.fit.parameters import rebuilder, vector_of, with_vector
from driftcal.train.learners.drift.dynamics import load as load_dynamics
from driftcal.train.learners.drift.loss import mode_of, plan_of
from driftcal.train.learners.drift.noise import noise_for
from driftcal.train.learners.drift.simulate import Plan
from driftcal.train.learners.drift.smagorinsky import Flow
from driftcal.train.learners.drift.user_dynamics import loading, terms
from driftcal.train.reading.batches import Grid
from driftcal.train.run import run_folder
from driftcal.train.settings import Training
from tests import flows, stores
from tests.commands import FAST, refused, unwritten_figures
from tests.result_keys import undescribed

EXAMPLE = "docs.examples.background:SmagorinskyBackground"

MODULE = """
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from driftcal.train.fit.parameters import Positive

NOT_A_MODULE = 3

class Plain:
    pass

class Smagorinsky(eqx.Module):
    cs: Positive
    def __init__(self, cs=0.1):
        self.cs = Positive(cs)
    def __call__(self, t, y, args):
        cs = self.cs.value
        drift = jnp.stack([args.u + cs * args.kappa_x, args.v + cs * args.kappa_y])
        return drift, jnp.sqrt(2 * jnp.maximum(cs * args.kappa, 1e-12))

class Wind(eqx.Module):
    share: jax.Array
    k: Positive
    def __init__(self, share=0.0, k=100.0):
        self.share, self.k = jnp.asarray(share), Positive(k)
    def term(self, t, y, args):
        wind = jnp.stack([5.0 + 0.5 * jnp.sin(y[1]), -3.0 + 1e-5 * t])
        return jnp.stack([args.u, args.v]) + self.share * wind, jnp.sqrt(2 * self.k.value) * jnp.array([1.0, 0.5])

class Net(eqx.Module):
    net: eqx.nn.MLP
    gain: float
    table: np.ndarray
    def __init__(self, seed=0):
        self.net = eqx.nn.MLP(3, 1, 5, 1, key=jax.random.key(seed))
        self.gain, self.table = 0.3, np.arange(3.0)
    def term(self, t, y, args):
        inputs = jnp.stack([args.u, args.v, 1e-3 * args.kappa])
        k = self.gain * jnp.maximum(args.kappa, 1e-9) * jnp.exp(self.net(inputs)[0])
        return jnp.stack([args.u, args.v]), jnp.sqrt(2 * k)

class NoTerm(eqx.Module):
    cs: Positive = Positive(0.1)

class Nothing(eqx.Module):
    gain: float = 0.1
    def term(self, t, y, args):
        return jnp.zeros(2), 0.1

class Any(eqx.Module):
    a: jax.Array
    how: str = eqx.field(static=True)
    def __init__(self, how, a=1.0):
        self.a, self.how = jnp.asarray(a), how
    def term(self, t, y, args):
        move = jnp.stack([args.u, args.v]) * self.a
        return {
            "drift shape": (jnp.zeros(3), 0.1),
            "diffusion shape": (move, jnp.ones((2, 2))),
            "not a pair": move,
            "nan": (move * jnp.nan, 0.1),
            "root": (move, jnp.sqrt(2 * self.a * args.kappa)),
            "complex": (move * 1j, 0.1),
            "raises": (move, args.wind) if self.how == "raises" else None,
            "late nan": (jnp.where(t > 3600.0, jnp.nan, move), 0.1),
            "fine": (move, 0.1),
        }[self.how]
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, usual_dtypes: None) -> Path:
    """The working directory, with a module of a user's in it, whose terms may mix types of numbers."""
    (tmp_path / "my_terms.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(__import__("sys").modules, "my_terms", raising=False)
    # Compiled programs stay: that terms are traced afresh is shown in test_function.
    monkeypatch.setattr(jax, "clear_caches", lambda: None)
    return tmp_path


def training(tree: dict, **more) -> Training:
    return build(Training, {"ensemble": {"members": 4}, "precision": "float64", **tree, **more}, "test")


def gradients(settings: Training, n: int = 5):
    with jax.enable_x64(True):
        model = load_dynamics(settings)
        batch = flows.batch(np.random.default_rng(6), n)
        step = flows.brief_step(settings, model)
        return model, jax.device_get(step(jnp.asarray(model.start), batch, 0))


def test_a_term_that_is_the_built_in_one_gives_the_same(own: Path) -> None:
    built_in = gradients(training({"integration": {"scheme": "ito-heun"}, "initial_cs": 0.2}))[1]
    model, found = gradients(training({"dynamics": "my_terms:Smagorinsky", "dynamics_settings": {"cs": 0.2}}))
    assert model.names == ("cs",)
    np.testing.assert_allclose(found.loss, built_in.loss, rtol=1e-9)
    np.testing.assert_allclose(found.gradient, built_in.gradient, rtol=1e-6)


TERMS = {
    "background": (EXAMPLE, {"cs": 0.2, "background": 50.0}),
    "wind": ("my_terms:Wind", {"share": 0.01}),
    "net": ("my_terms:Net", {}),
}


@pytest.mark.parametrize("name", TERMS)
def test_both_modes_give_the_same_gradient_of_every_sample(own: Path, name: str) -> None:
    spec, arguments = TERMS[name]
    tree = {"dynamics": spec, "dynamics_settings": arguments}
    model, forward = gradients(training(tree, gradient={"mode": "forward"}))
    _, reverse = gradients(training(tree, gradient={"mode": "reverse"}))
    assert forward.gradient.shape == (5, model.size)
    assert np.abs(forward.gradient).max() > 1e-3
    np.testing.assert_allclose(reverse.loss, forward.loss, rtol=1e-12)
    np.testing.assert_allclose(
        reverse.gradient, forward.gradient, rtol=1e-9, atol=1e-9 * np.abs(forward.gradient).max()
    )


def test_reverse_mode_of_the_built_in_dynamics_is_forward_mode() -> None:
    forward, reverse = (gradients(training({"gradient": {"mode": mode}}))[1] for mode in ("forward", "reverse"))
    np.testing.assert_allclose(reverse.gradient, forward.gradient, rtol=1e-9)


def test_gradient_of_a_term_is_that_of_finite_differences(own: Path) -> None:
    settings = training({"dynamics": "my_terms:Wind", "dynamics_settings": {"share": 0.01}})
    with jax.enable_x64(True):
        model = load_dynamics(settings)
        batch = flows.batch(np.random.default_rng(6), 5)
        step = flows.brief_step(settings, model)
        at = jnp.asarray(model.start)
        slopes = step(at, batch, 0).gradient
        for k in range(2):
            d = 1e-8 * jnp.eye(2)[k]
            difference = (step(at + d, batch, 0).loss - step(at - d, batch, 0).loss) / 2e-8
            np.testing.assert_allclose(np.asarray(slopes)[:, k], difference, rtol=1e-3, atol=1e-6)


def test_mode_is_chosen_by_the_laws_of_its_cost() -> None:
    def mode(n: int, **changed: Any) -> str:
        return mode_of(training(changed), n, flows.GRID).mode

    assert [mode(n) for n in (1, 2, 7, 8, 1000)] == ["forward"] * 3 + ["reverse"] * 2
    assert mode(1, gradient={"mode": "reverse"}) == "reverse"
    assert mode(1000, gradient={"mode": "forward"}) == "forward"
    assert "asked for by gradient.mode" in mode_of(training({"gradient": {"mode": "forward"}}), 9, flows.GRID).reason


def test_mode_keeps_to_the_memory_of_the_device() -> None:
    """Where the faster mode does not fit, the other one is taken if it is smaller, and the reason says so."""
    fast = choose(1, 1280, 121, 4, 10**9)
    assert (fast.mode, "forward mode: for 1 parameter it takes 1/" in fast.reason) == ("forward", True)
    many = choose(10_000, 1280, 121, 4, 10**9)
    assert (many.mode, "for 10,000 parameters" in many.reason) == ("reverse", True)
    long = choose(12, 10**6, 10_000, 4, 10**10)
    assert long.mode == "forward"
    assert long.reason.startswith(
        "forward mode: reverse mode would take 1/1.4 of the time for 12 parameters, but 90 GB of "
    )
    assert long.reason.endswith("memory, and the device has 10 GB")


def temporary(mode: str, step: str) -> int:
    """Bytes that the compiled step needs beside arguments and results."""
    settings = training({"gradient": {"mode": mode}, "integration": {"step": step}}, precision="float32")
    batch = flows.cast(flows.batch(np.random.default_rng(6), 8), np.float32)
    plan, model = plan_of(settings, flows.GRID), load_dynamics(settings)

    def step(parameters, batch):
        noise, weights = (noise_for(0, 0, batch.sample, n, 0, batch.latitude.dtype) for n in (4, 10))
        return flows.gradients(model, parameters, batch, plan, settings, noise, weights)

    analysis = jax.jit(step).lower(jnp.zeros(1, jnp.float32), batch).compile().memory_analysis()
    assert analysis is not None
    return analysis.temp_size_in_bytes


def test_memory_of_forward_mode_does_not_depend_on_the_number_of_steps() -> None:
    """But for where each step falls in the table: an integer and a share for each of 8 samples."""
    few, many = (temporary("forward", step) for step in ("1h", "10min"))
    assert abs(many - few - 600 * 8 * (4 + 4)) < 0.001 * few


def test_memory_of_reverse_mode_is_that_of_the_fixes_and_one_interval() -> None:
    """Six times as many steps: only the steps between two fixes are kept, out of 120 times as many in all."""
    few, many = (temporary("reverse", step) for step in ("1h", "10min"))
    state = 8 * 4 * 4 * 2  # bytes of all positions of a batch of 8 with 4 members
    assert many - few < 5 * 200 * state
    assert many - few < 0.5 * 120 * 5 * 10 * state


@pytest.mark.parametrize("background", [0.0, 150.0])
def test_effective_drift_of_the_example(background: float) -> None:
    """K linear in x: the mean moves by grad K t, whatever is added to K."""
    grid = Grid(3, 40, 48, 13, 86_400, 3600, 0.05, 0.05)
    slope, dx = 0.02, METRES_PER_DEGREE * grid.lon_step
    kappa = np.broadcast_to(200.0 + slope * dx * np.arange(grid.n_lon), (grid.n_lat, grid.n_lon))
    final, inside = spread_out(0.7, background, kappa, np.tile([23.3, 19.6], (100, 1)), grid, 1000)
    moved = (final[..., 0] - 23.3) * dx
    expected = 0.7 * slope * 12 * 3600
    pairs = moved[:500] + moved[500:]
    assert inside.all()
    assert pairs.std() / 2 / np.sqrt(pairs.size) / expected < 0.012
    assert moved.mean() / expected == pytest.approx(1.0, abs=0.036)


def test_the_example_keeps_a_uniform_tracer_uniform() -> None:
    """A hill of K upon a background, seeded far around: the density on the hill stays what it was."""
    grid = Grid(3, 48, 56, 49, 86_400, 3600, 0.05, 0.05)
    j, i = np.mgrid[: grid.n_lat, : grid.n_lon]
    hill = np.sin(np.pi * np.clip((i - 16) / 24, 0, 1)) * np.sin(np.pi * np.clip((j - 14) / 20, 0, 1))
    # evenly seeded: chance in the starts would be larger than what is looked for
    start = np.stack([a.ravel() for a in np.meshgrid(np.arange(1.35, 54, 0.9), np.arange(1.25, 46, 0.9))], -1)
    final, _ = spread_out(1.0, 40.0, 600.0 * hill**2, start, grid, 10)
    box = np.array([[22.0, 34.0], [19.0, 29.0]])

    def within(at: np.ndarray) -> int:
        return int(((at > box[:, 0]) & (at < box[:, 1])).all(axis=-1).sum())

    expected = 10 * np.ptp(box, axis=1).prod() / 0.9**2
    assert within(final) / expected == pytest.approx(1.0, abs=0.03)


def spread_out(cs, background, kappa, start, grid, members):
    """Final (column, row) (S, n, 2) of the example's members in a frozen kappa without current."""
    with jax.enable_x64(True):
        batch = jax.device_put(flows.still_batch(start, grid))
        module = loading.load(EXAMPLE, {"cs": cs, "background": max(background, 1e-9)}, np.dtype(np.float64))
        dynamics = terms.Adapter(vector_of(module), rebuilder(module))

        def noise(n):  # antithetic pairs
            half = jax.random.normal(jax.random.fold_in(jax.random.key(0), n), (2, members // 2, len(start)))
            return jnp.concatenate([half, -half], axis=1)

        plan = Plan(grid, 1800, 86_400, "ito-heun")
        table = flows.frozen(kappa, grid, len(start))
        run = flows.simulated(dynamics, batch, plan, members, noise, table=table)
        final = np.asarray(run.positions[-1]).transpose(1, 2, 0) + np.asarray(batch.cell)
        return final, np.asarray(run.inside)


def test_a_term_sees_time_place_and_flow_and_stays_on_land() -> None:
    """What the term is given, read back through the drift that it makes of it."""
    grid = flows.GRID

    class Spy(eqx.Module):
        a: jax.Array

        def term(self, t, y, args):
            return jnp.stack([1e-6 * t, 1e-3 * (y[0] - 171.0) + 1e-4 * (y[1] + 30.0)]) + self.a, jnp.zeros(2)

    with jax.enable_x64(True):
        batch = flows.still_batch(np.array([[7.5, 9.25], [3.5, 8.5]]), grid)
        currents = np.array(batch.currents)
        currents[1] = -32768
        batch = eqx.tree_at(
            lambda b: (b.currents, b.longitude, b.latitude),
            batch,
            (currents, np.array([170.0, 170.0]), np.array([-33.0, -33.0])),
        )
        module = Spy(jnp.zeros(()))
        dynamics = terms.Adapter(vector_of(module), rebuilder(module))
        run = flows.simulated(
            dynamics,
            jax.device_put(batch),
            Plan(grid, 3600, 86_400, "euler"),
            2,
            lambda n: jnp.ones((2, 2, 2)),
            keep_positions=True,
        )
        moved = np.asarray(run.positions)[:, :, 0, :] - np.asarray(batch.start).T
    first = moved[0, 1, 0] * grid.lat_step * 111_194.93 / 3600  # m/s north, in the first hour
    assert first == pytest.approx(1e-3 * (170.0 + 7.5 * 0.2 - 171.0) + 1e-4 * (-33.0 + 9.25 * 0.25 + 30.0), rel=1e-4)
    cos = np.cos(np.radians(-33.0 + 9.25 * 0.25))
    second = (moved[1, 0, 0] - moved[0, 0, 0]) * grid.lon_step * 111_194.93 * cos / 3600
    assert moved[0, 0, 0] == 0.0  # t = 0
    assert second == pytest.approx(1e-6 * 3600, rel=1e-3)
    assert np.abs(moved[:, :, 1]).max() == 0.0
    assert np.asarray(run.ashore)[:, 1].all()


def test_names_and_numbers_of_trained_leaves(own: Path) -> None:
    settings = training(
        {"dynamics": "my_terms:Wind", "dynamics_settings": {"share": 0.02, "k": 50.0}}, precision="float32"
    )
    model = load_dynamics(settings)
    assert model.names == ("share", "k")
    np.testing.assert_allclose(model.start, [0.02, np.log(50.0)], rtol=1e-6)
    np.testing.assert_allclose(model.values(model.start), [0.02, 50.0], rtol=1e-6)
    net = load_dynamics(training({"dynamics": "my_terms:Net"}, precision="float32"))
    assert net.names[:2] == ("net.layers.0.weight[0,0]", "net.layers.0.weight[0,1]")
    assert net.size == 3 * 5 + 5 + 5 + 1
    moved = with_vector(net.module, np.arange(net.size))
    np.testing.assert_array_equal(vector_of(moved), np.arange(net.size))


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stores.build(tmp_path_factory.mktemp("small") / "store", 30).path


MISTAKES = {
    "dynamics=nocolon": "expected module:Class",
    "dynamics=no_such_module_x:A": "cannot import no_such_module_x (ModuleNotFoundError",
    "dynamics=broken:A": "cannot import broken (ZeroDivisionError: division by zero)",
    "dynamics=my_terms:Missing": "my_terms has no subclass of equinox.Module called Missing",
    "dynamics=my_terms:NOT_A_MODULE": "has no subclass of equinox.Module",
    "dynamics=my_terms:Plain": "has no subclass of equinox.Module",
    "dynamics=my_terms:NoTerm": "has no method term(t, y, args)",
    "dynamics=my_terms:Nothing": "has nothing to train",
    "dynamics=my_terms:Any": "cannot be built from dynamics_settings {} (TypeError",
    "how=drift shape": "term returns drift of shape (3,); expected (drift, diffusion)",
    "how=diffusion shape": "term returns diffusion of shape (2, 2)",
    "how=not a pair": "expected (drift, diffusion)",
    "how=complex": "drift",
    "how=raises": "term(t, y, args) fails for t of shape ()",
    "how=nan": "drift is [nan nan] in a flow of 0.4 m/s with kappa 500 m2/s at lon, lat",
    "how=root": "diffusion has a derivative that is not finite in a flow at rest",
    "a=-.inf": "parameter a does not start at finite numbers",
    "integration.scheme=heun": "With dynamics set use ito-heun or euler",
    "optimizer.method=newton": "for at most 10 parameters; dynamics 'my_terms:Net' has 26",
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_in_a_term_are_told(own: Path, small: Path, capsys, mistake: str) -> None:
    (own / "broken.py").write_text("1 / 0\n")
    sets = {"dynamics": "my_terms:Any", "dynamics_settings.how": "fine"}
    key, _, value = mistake.partition("=")
    if key == "dynamics":
        sets = {"dynamics": value}
    elif key == "optimizer.method":
        sets = {"dynamics": "my_terms:Net", key: value}
    else:
        sets[f"dynamics_settings.{key}" if key in ("how", "a") else key] = value
    words = [word for item in sets.items() for word in ("--set", "=".join(item))]
    assert MISTAKES[mistake] in refused(capsys, 2, "run", small, "--out", own / "run", *words)
    assert not (own / "run").exists()


def test_settings_without_dynamics_are_refused(small: Path, tmp_path: Path, capsys) -> None:
    said = refused(capsys, 2, "run", small, "--out", tmp_path / "run", "--set", "dynamics_settings.cs=1")
    assert "set dynamics to module:Class too" in said


def test_a_term_that_fails_on_the_way_stops_the_run(own: Path, small: Path, capsys) -> None:
    words = ["--set", "dynamics=my_terms:Any", "--set", "dynamics_settings.how=late nan"]
    said = refused(capsys, 1, "run", small, "--out", own / "run", *words, *FAST)
    assert "samples give no finite loss and gradient" in said


def run(small: Path, out: Path, *sets: str) -> dict:
    words = [word for one in sets for word in ("--set", one)]
    assert main(["run", str(small), "--out", str(out), *FAST, *words]) == 0
    return json.loads((out / run_folder.RESULT).read_text())


def test_a_run_of_a_few_parameters(own: Path, small: Path, capsys) -> None:
    found = run(small, own / "run", "dynamics=my_terms:Wind", "dynamics_settings.share=0.002")
    assert found["cs"] is None
    assert set(found["parameters"]) == {"share", "k"}
    assert found["parameters"]["k"]["start"] == pytest.approx(100.0, rel=1e-6)
    assert found["parameters"]["share"]["trained_as"] == "itself"
    assert (found["optimizer"], found["gradient_mode"], found["scheme"]) == ("newton", "forward", "ito-heun")
    assert found["gradient_reason"].startswith("forward mode: for 2 parameters it takes 1/")
    assert found["dynamics"] == "my_terms:Wind"
    lines = [json.loads(line) for line in (own / "run" / run_folder.METRICS).read_text().splitlines()]
    assert all(set(line["parameters"]) == set(line["gradient"]) == {"share", "k"} for line in lines)
    assert {*undescribed(found, run_folder.RESULT), *undescribed(lines[0], run_folder.METRICS)} == set()
    shown = capsys.readouterr().out
    assert "share = " in shown
    assert "C_s =" not in shown
    assert "my_terms:Wind" in (own / "run" / run_folder.PAGE).read_text()
    assert main(["evaluate", str(own / "run"), str(small), "--split", "test"]) == 0
    assert json.loads((own / "run" / run_folder.EVALUATION).read_text())["cs"] is None
    module = eqx.tree_deserialise_leaves(
        own / "run" / run_folder.DYNAMICS,
        load_dynamics(build(Training, yaml.safe_load((own / "run" / run_folder.CONFIG).read_text()), "run")).module,
    )
    assert float(module.k.value) == pytest.approx(found["parameters"]["k"]["value"], rel=1e-5)


def test_a_run_of_many_parameters(own: Path, small: Path, capsys) -> None:
    with unwritten_figures():
        found = run(small, own / "run", "dynamics=my_terms:Net", "epochs=2")
    assert (found["optimizer"], found["gradient_mode"], found["n_parameters"]) == ("adam", "reverse", 26)
    assert "no standard errors" in found["convergence"]
    line = json.loads((own / "run" / run_folder.METRICS).read_text().splitlines()[0])
    assert {*undescribed(found, run_folder.RESULT), *undescribed(line, run_folder.METRICS)} == set()
    weights = found["parameters"]["net.layers.0.weight"]
    assert weights["shape"] == [5, 3]
    assert weights["standard_error"] is None
    assert weights["rms_change"] > 0.01
    assert "26 parameters of my_terms:Net" in capsys.readouterr().out
    (own / "run" / run_folder.DYNAMICS).write_bytes(b"x")
    assert "does not hold the calibrated parameters" in refused(capsys, 2, "evaluate", own / "run", small)


def test_a_term_is_called_only_by_ito_schemes() -> None:
    flow = Flow(*(jnp.zeros(()) for _ in range(5)), jnp.asarray(False))
    with pytest.raises(ValueError, match="whole drift of the Ito equation"):
        terms.Adapter(jnp.zeros(1), lambda v: lambda t, y, a: (y, v))(flow, 0.5)
    with pytest.raises(ConfigError, match="ito-heun or euler"):
        training({"dynamics": EXAMPLE, "integration": {"scheme": "reference"}})
    assert training({"dynamics": EXAMPLE}).integration.scheme == "ito-heun"
    assert training({}).integration.scheme == "heun"
    assert SmagorinskyBackground().cs.value == pytest.approx(0.1)
