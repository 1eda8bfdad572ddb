"""Synthetic truths: currents and drifters with a known answer."""
