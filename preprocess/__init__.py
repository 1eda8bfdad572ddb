"""Cuts a space-time window of currents around every drifter segment (numpy, xarray, dask)."""
