"""The cost of a gradient through time: the study behind `drift-train cost`."""

from driftcal.train.gradient_cost.timed_model import Model

__all__ = ["Model"]
