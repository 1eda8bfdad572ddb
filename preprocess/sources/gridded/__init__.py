"""Gridded records, such as surface currents: axes, packing, levels."""
