"""What a gradient through time costs: the study behind `drift-train cost`."""

from train.cost.model import Model

__all__ = ["Model"]
