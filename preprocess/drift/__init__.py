"""Tracks and currents, cut into samples of kind `drift`."""
