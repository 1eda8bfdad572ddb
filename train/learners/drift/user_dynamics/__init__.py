"""Dynamics that users write: loaded, checked, and recognised again by their fingerprint."""
