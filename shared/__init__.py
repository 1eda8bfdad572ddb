"""The contract between the two stages: settings, errors, geometry, the shard store and its inspector."""

from driftcal.shared import streams

streams.reserve()  # before anything is imported that opens files
