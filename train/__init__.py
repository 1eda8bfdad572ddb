"""Calibrates the stochastic drift simulator on a shard store (jax, equinox, optax)."""
