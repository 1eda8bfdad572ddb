"""The objective of a batch: ensembles simulated around its drifters, and scored against them.

Counts of every sample: `escaped`, members that left their window, and `ashore`, members that ended in a cell without
any current.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from driftcal.train.fit import sample_gradients
from driftcal.train.fit.gradient_mode import Choice, choose, memory_of_device
from driftcal.train.fit.parameters import Parameters
from driftcal.train.fit.sample_gradients import Extras, Loss, SampleGradients, Step
from driftcal.train.learners.drift import scoring_rules
from driftcal.train.learners.drift.dynamics import dynamics_of
from driftcal.train.learners.drift.engines import simulate
from driftcal.train.learners.drift.noise import Noise, noise_for
from driftcal.train.learners.drift.simulate import Dynamics, Plan
from driftcal.train.learners.drift.smagorinsky import Smagorinsky, tabulate
from driftcal.train.machine.devices import Devices
from driftcal.train.reading.batches import Batch, Grid
from driftcal.train.settings import Training

TRAINED, WEIGHTS = 0, 1
"""Streams of noise: of the trained ensemble, and of the one whose spread weights the `energy` objective."""


def plan_of(settings: Training, grid: Grid) -> Plan:
    """The plan of a run's integration on a store's grid."""
    integration = settings.integration
    return Plan(grid, integration.step, integration.kappa_every, integration.scheme, settings.engine)


def mode_of(settings: Training, n_parameters: int, grid: Grid) -> Choice:
    """The mode in which the gradient of so many parameters is computed, and why."""
    if settings.gradient.mode != "auto":
        return Choice(settings.gradient.mode, f"{settings.gradient.mode} mode: asked for by gradient.mode")
    if settings.engine != "driftcal":
        return Choice("forward", f"forward mode: the only one that engine={settings.engine} offers")
    ensemble = settings.ensemble.members * settings.batch_size
    return choose(n_parameters, ensemble, grid.n_obs, np.dtype(settings.precision).itemsize, memory_of_device())


def streams(settings: Training, batch: Batch, epoch: Array) -> tuple[Noise, Noise]:
    """Noise of the trained ensemble and of the weights: a function of (seed, epoch, sample, step, member) alone."""
    members, reference = settings.ensemble.members, settings.score.reference_members
    dtype = batch.latitude.dtype
    return (
        noise_for(settings.seed, epoch, batch.sample, members, TRAINED, dtype),
        noise_for(settings.seed, epoch, batch.sample, reference, WEIGHTS, dtype),
    )


def sample_losses(
    dynamics: Dynamics,
    batch: Batch,
    plan: Plan,
    settings: Training,
    noise: Noise,
    weights_noise: Noise,
    checkpoint: bool = False,
) -> tuple[Array, Extras]:
    """Every sample's objective; with it the dispersion, and how many members escaped and ran ashore."""
    steps_deg = plan.grid.lon_step, plan.grid.lat_step
    table = tabulate(batch.currents, batch.latitude, plan.grid, plan.kappa_every, plan.step)
    name = settings.score.objective
    spread = None
    if name == "energy":
        reference = Smagorinsky.of_log(jnp.log(jnp.asarray(settings.score.reference_cs, batch.latitude.dtype)))
        still = simulate(reference, batch, plan, settings.score.reference_members, weights_noise, table=table)
        spread = jax.lax.stop_gradient(2.0 * still.distances.between)
    moved = simulate(
        dynamics,
        batch,
        plan,
        settings.ensemble.members,
        noise,
        own_lengths=name == "reference",
        table=table,
        checkpoint=checkpoint,
    )
    latitude = batch.latitude + batch.cell[:, 1].astype(batch.latitude.dtype) * plan.grid.lat_step
    path = scoring_rules.path_steps(batch.track, latitude, steps_deg)
    loss, dispersion = scoring_rules.objective(name, moved.distances, path, spread)
    counts = {"escaped": (~moved.inside).sum(axis=0), "ashore": moved.ashore.sum(axis=0)}
    return loss, Extras(dispersion, counts)


def loss_of(settings: Training, grid: Grid, parameters: Parameters) -> Loss:
    """The objective as a function of parameters, for the gradient to be taken of."""
    plan, checkpoint = plan_of(settings, grid), mode_of(settings, parameters.size, grid).mode == "reverse"

    def loss(vector: Array, batch: Batch, epoch: Array) -> tuple[Array, Extras]:
        dynamics = dynamics_of(parameters, vector)
        return sample_losses(dynamics, batch, plan, settings, *streams(settings, batch, epoch), checkpoint=checkpoint)

    return loss


def make_step(settings: Training, grid: Grid, parameters: Parameters, devices: Devices | None = None) -> Step:
    """The compiled step of a run; with `devices` each computes its part of the batch."""
    mode = mode_of(settings, parameters.size, grid).mode
    return sample_gradients.make_step(loss_of(settings, grid, parameters), mode, devices)


def compile_step(
    settings: Training, grid: Grid, parameters: Parameters, devices: Devices | None = None
) -> Callable[..., SampleGradients]:
    """The step as a jitted function of (parameters, batch, epoch as uint32)."""
    mode = mode_of(settings, parameters.size, grid).mode
    return sample_gradients.compile_step(loss_of(settings, grid, parameters), mode, devices)
