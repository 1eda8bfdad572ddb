"""The contract between the two stages: words, geometry, the shard store and its inspector."""
