"""Learners: each turns samples of one kind into a calibrated or trained model."""
