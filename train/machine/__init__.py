"""The machine: devices, processes of a run, and the environment that JAX reads."""
