"""The life of a run: its loop, state, checkpoints, log and folder."""
