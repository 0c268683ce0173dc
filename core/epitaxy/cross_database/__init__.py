"""Several databases: train on each, test on all."""

from epitaxy.cross_database.options import CrossConfig, CrossOptions, load_cross
from epitaxy.cross_database.result import CrossResult, Measured
from epitaxy.cross_database.run import PLOT, RESULT, cross_database

__all__ = [
    "PLOT",
    "RESULT",
    "CrossConfig",
    "CrossOptions",
    "CrossResult",
    "Measured",
    "cross_database",
    "load_cross",
]
