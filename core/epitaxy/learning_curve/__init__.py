"""Learning curves: the same test set, growing training sets, several ways to train."""

from epitaxy.learning_curve.options import CurveConfig, CurveOptions, load_curve, read_curve
from epitaxy.learning_curve.result import CurveResult, Findings
from epitaxy.learning_curve.run import learning_curve, training_order

__all__ = [
    "CurveConfig",
    "CurveOptions",
    "CurveResult",
    "Findings",
    "learning_curve",
    "load_curve",
    "read_curve",
    "training_order",
]
