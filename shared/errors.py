"""The errors a user can meet.

Every message says what was expected, what came, where, and what to do. The commands print the message alone and
leave with the class's `exit_code`; `--debug` shows the traceback.
"""


class DriftcalError(Exception):
    """Base of every error that driftcal raises on purpose."""

    exit_code = 1


class DataError(DriftcalError):
    """A source of drifters or currents is not what it should be."""


class StoreError(DriftcalError):
    """A shard store is unfinished, damaged, or does not contain what was asked for."""


class LimitError(DriftcalError):
    """The system refuses something, allows too little of it, or fails; the data may be whole."""

    exit_code = 4


class ConfigError(DriftcalError):
    """A configuration, an option or a combination of them is wrong."""

    exit_code = 2


class Interrupted(DriftcalError):
    """The work was stopped from outside and can be resumed."""

    exit_code = 3
