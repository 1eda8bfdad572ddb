"""What a gradient through time costs: the study behind `drift-train cost`."""

from driftcal.train.gradient_cost.timed_model import Model

__all__ = ["Model"]
