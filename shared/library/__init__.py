"""driftcal: calibrated simulators of ocean drift. The face of the library, installed as the package `driftcal`."""

from importlib.metadata import version

__version__ = version("driftcal")
