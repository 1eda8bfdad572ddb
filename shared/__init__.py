"""The contract between the two stages: words, geometry, the shard store and its inspector."""

from driftcal.shared import streams

streams.reserve()  # before anything is imported that opens files
