"""Calibrates the stochastic drift simulator on a shard store (jax, equinox, optax)."""

from driftcal.shared import streams

streams.reserve()  # before anything is imported that opens files
