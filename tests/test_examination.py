"""The examination of a run with dynamics of a user's that are the built-in ones, written as a term of one parameter."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from driftcal.train.__main__ import main
from tests import stores

TERM = """
from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
from driftcal.train.fit.parameters import Positive

class Diffusion(eqx.Module):
    share: Positive = Positive(0.1)
    scales_diffusivity: ClassVar[bool] = True
    headline: ClassVar[str] = "share"  # no name for a user's module to take

    def term(self, t, y, args):
        k = self.share.value
        drift = jnp.stack([args.u + k * args.kappa_x, args.v + k * args.kappa_y])
        amplitude = jnp.sqrt(2.0 * k) * jnp.sqrt(jnp.maximum(args.kappa, 1e-12))
        return drift, jnp.where(args.kappa > 0.0, amplitude, 0.0)
"""

SETTINGS = ("ensemble.members=3", "score.reference_members=2", "integration.step=3h", "integration.scheme=ito-heun",
            "epochs=2", "batch_size=8", "precision=float64", "optimizer.final_passes=3")  # fmt: skip


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The same calibration by the built-in dynamics and by the term."""
    root = tmp_path_factory.mktemp("examination")
    # twelve drifters to train on, on both sides of a parallel and a meridian that divide groups
    store = stores.build(root / "store", 30, n_drifters=14, centre=(30.0, -30.0)).path
    (root / "diffusion.py").write_text(TERM)
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(root)
        patched.syspath_prepend(str(root))
        for name, more in (("built-in", ()), ("term", ("dynamics=diffusion:Diffusion",))):
            told = [word for setting in (*SETTINGS, *more) for word in ("--set", setting)]
            assert main(["run", str(store), "--out", str(root / name), "--group-by", "latitude:10", *told]) == 0
    return root / "built-in", root / "term"


def tree(run: Path, name: str) -> dict[str, Any]:
    return json.loads((run / name).read_text())


def test_a_term_that_is_the_built_in_diffusion_is_calibrated_and_examined_alike(runs: tuple[Path, Path]) -> None:
    ours, theirs = (tree(run, "result.json")["parameters"] for run in runs)
    assert list(theirs) == ["share"]
    for key in ("value", "standard_error", "trained"):
        assert theirs["share"][key] == pytest.approx(ours["cs"][key], rel=1e-6)
    assert tree(runs[1], "result.json")["cs"] is None

    ours, theirs = (tree(run, "result.json") for run in runs)
    # the range of C_s is the model's, that of a term lies about its value
    low, high = np.array([0.3, 3.0]) * ours["cs"]
    curves = [np.array([found["profile"]["value"], found["profile"]["score"]]) for found in (ours, theirs)]
    at = np.geomspace(low, high, 5)
    smooth = [np.polynomial.Polynomial.fit(np.log(x), y, 8)(np.log(at)) for x, y in curves]
    np.testing.assert_allclose(smooth[1], smooth[0], rtol=0.02)
    assert [found["profile"]["parameter"] for found in (ours, theirs)] == ["cs", "share"]
    checked, theirs_too = (found["model_checks"] for found in (ours, theirs))
    assert {"bands", "boxes", "lead_time", "memory", "reliability"} <= set(checked)
    assert list(checked) == list(theirs_too)
    for name, check in checked.items():
        assert theirs_too[name]["p_value"] == pytest.approx(check["p_value"], rel=1e-2)

    ours, theirs = (tree(run, "groups.json") for run in runs)
    assert theirs["log_value"] == pytest.approx(ours["log_value"], rel=1e-6)
    assert [found["parameter"] for found in (ours, theirs)] == ["cs", "share"]
    for mine, own in zip(ours["groupings"][0]["groups"], theirs["groupings"][0]["groups"], strict=True):
        assert own["shrunk_value"] == pytest.approx(mine["shrunk_value"], rel=1e-3)

    page = (runs[1] / "report.html").read_text(encoding="utf-8")
    assert "share = " in page
    assert "around share = " in page
    assert (runs[1] / "figures" / "profile.pdf").exists()
    assert (runs[1] / "figures" / "groups-1.pdf").exists()
