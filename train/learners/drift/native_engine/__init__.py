"""The simulator as a C++ kernel behind `jax.ffi`, compiled where it runs: an optional engine for CPUs."""
