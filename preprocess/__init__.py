"""Cuts a space-time window of currents around every drifter segment (numpy, xarray, dask)."""

from driftcal.shared import streams

streams.reserve()  # before anything is imported that opens files
