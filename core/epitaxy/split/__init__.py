"""Dividing a dataset into parts for training, validation and test."""

from epitaxy.composition import compositions
from epitaxy.split.assign import part_sizes
from epitaxy.split.by_element import split_by_element
from epitaxy.split.by_fold import split_by_folds, split_kfold
from epitaxy.split.by_group import split_by_group, split_together
from epitaxy.split.by_target import TEST_PART, split_forward, split_stratified, tagged_test
from epitaxy.split.divide import all_folds, divide, divide_again, divide_together
from epitaxy.split.labels import group_labels
from epitaxy.split.leaks import Leaks, leaks
from epitaxy.split.options import METHODS, SplitOptions
from epitaxy.split.parts import PARTS, Split
from epitaxy.split.plain import split_by_ids, split_random
from epitaxy.split.saved import ids_digest

__all__ = [
    "METHODS",
    "PARTS",
    "TEST_PART",
    "Leaks",
    "Split",
    "SplitOptions",
    "all_folds",
    "compositions",
    "divide",
    "divide_again",
    "divide_together",
    "group_labels",
    "ids_digest",
    "leaks",
    "part_sizes",
    "split_by_element",
    "split_by_folds",
    "split_by_group",
    "split_by_ids",
    "split_forward",
    "split_kfold",
    "split_random",
    "split_stratified",
    "split_together",
    "tagged_test",
]
