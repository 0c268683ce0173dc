"""`epitaxy split`: divide datasets into training, validation and test sets."""

from __future__ import annotations

import json
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from epitaxy.errors import SplitError

if TYPE_CHECKING:
    from epitaxy.split import Leaks, Split, SplitOptions

_METHODS = ("random", "group", "ids", "stratified", "element", "forward", "folds", "kfold")
_OPTIONS = (
    *("method", "seed", "groups", "assignment", "by", "n_bins", "elements", "target", "direction"),
    "low_test",
    *("folds", "fold", "n_folds", "n_inner", "inner", "train"),
)


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "dataset",
        type=Path,
        nargs="+",
        help="dataset to divide; several are divided together: no group is in two parts of them",
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        help="JSON file to make; a folder of them for several datasets and for all folds",
    )
    parser.add_argument(
        "--method",
        choices=_METHODS,
        default="group",
        help="how to divide; all but random, ids and folds keep groups whole (default: group)",
    )
    parser.add_argument(
        "--valid", help="fraction below 1 or number (default: 0.1); with ids: file, one per line"
    )
    parser.add_argument(
        "--test", help="fraction below 1 or number (default: 0.1); with ids: file, one per line"
    )
    parser.add_argument("--train", help="with ids: file of ids (default: all the others)")
    parser.add_argument(
        "--groups",
        help="what stays together: composition (default), spacegroup, matched or prototype (made "
        "by `epitaxy groups`), a tag, or none",
    )
    parser.add_argument(
        "--assignment",
        choices=("sizes", "hash"),
        help="with group: near the sizes asked for (default), or by hash: groups keep their part "
        "when the dataset grows",
    )
    parser.add_argument("--by", help="with stratified: target or tag; with folds: classes")
    parser.add_argument("--n-bins", type=int, help="with stratified: quantiles (default: 10)")
    parser.add_argument("--elements", help="with element: held out for the test, as Co,Ni")
    parser.add_argument("--target", help="with forward: the target whose best are the test")
    parser.add_argument("--direction", choices=("high", "low"), help="with forward (default: high)")
    parser.add_argument(
        "--low-test",
        action="store_const",
        const=True,
        help="with forward: the test also gets as many structures of the rest, for comparison",
    )
    parser.add_argument(
        "--folds", help="with folds: file with the fold of each structure, or matbench"
    )
    parser.add_argument(
        "--fold", type=int, help="with folds and kfold: the test, from 0 (kfold: all, one by one)"
    )
    parser.add_argument("--n-folds", type=int, help="with kfold (default: 5)")
    parser.add_argument("--n-inner", type=int, help="with kfold: inner folds, for a nested one")
    parser.add_argument("--inner", type=int, help="with kfold: the inner fold for validation")
    parser.add_argument("--seed", type=int, default=0, help="of the division (default: 0)")
    parser.add_argument("--overwrite", action="store_true", help="replace existing files")
    parser.add_argument(
        "--check", type=Path, metavar="FILE", help="make nothing: look for leaks in this split"
    )
    parser.add_argument(
        "--other",
        nargs=2,
        action="append",
        default=[],
        metavar=("DATASET", "FILE"),
        help="with --check: another dataset and its split, whose parts must not share anything "
        "with it",
    )
    parser.add_argument("--json", action="store_true", help="with --check: as JSON")


def run(args: Namespace) -> int:
    """Divide, check, write and return 0; with --check return 1 if anything leaks."""
    from epitaxy.dataset import Dataset
    from epitaxy.split import all_folds, divide, divide_together

    if args.check:
        return _check(args)
    if args.output is None:
        raise SplitError("-o OUTPUT is missing: the file to make")
    if args.other or args.json:
        raise SplitError("--other and --json are for --check")
    options = _options(args)
    takes_all_folds = args.method == "kfold" and args.fold is None
    is_folder = takes_all_folds or len(args.dataset) > 1
    files = _outputs(args, list(all_folds(options)) if takes_all_folds else None)
    if not args.overwrite and (taken := [file for file in files if file.exists()]):
        raise SplitError(f"{taken[0]}: exists; use --overwrite or choose another name")
    if is_folder and args.output.is_file():
        raise SplitError(f"{args.output}: a file; several splits are written into a folder")
    datasets = [Dataset.open(path) for path in args.dataset]
    if takes_all_folds:
        if len(datasets) > 1:
            raise SplitError("method kfold divides one dataset")
        splits = [divide(datasets[0], turn) for turn in all_folds(options).values()]
    else:
        splits = divide_together(datasets, options)
    for split, file in zip(splits, files, strict=True):
        split.save(file)
        if is_folder:
            sizes = "  ".join(f"{name} {len(rows):,}" for name, rows in split.rows.items())
            print(f"{file}: {sizes}, digest {split.digest[:12]}")
        else:
            for name, rows in split.rows.items():
                print(f"{name:5}  {len(rows):>9,} structures")
            print(f"{file}: digest {split.digest[:12]}")
    for together in [[split] for split in splits] if takes_all_folds else [splits]:
        _say(together)
    return 0


def _options(args: Namespace) -> SplitOptions:
    from epitaxy.split import SplitOptions

    given: dict[str, Any] = {name: getattr(args, name) for name in _OPTIONS}
    for name in ("valid", "test"):
        text = getattr(args, name)
        if text is not None:
            given[name] = text if args.method == "ids" else _size(f"--{name}", text)
    return SplitOptions(**given)


def _outputs(args: Namespace, folds: list[str] | None) -> list[Path]:
    from epitaxy.curation.names import distinct_names

    if folds is not None:
        return [args.output / f"{name}.json" for name in folds]
    if len(args.dataset) == 1:
        return [args.output]
    names = distinct_names(args.dataset)
    return [args.output / f"{name.replace('/', '-')}.json" for name in names]


def _say(splits: list[Split]) -> None:
    """Say what the parts of a new split, or of splits made together, share."""
    from epitaxy.split import leaks
    from epitaxy.split.leaks import MAX_WORK

    for split in splits:
        _say_how_far_off(split)
    found = leaks(splits, max_work=MAX_WORK)
    for line in found.lines():
        print(f"note: {line}")
    if found.groups:
        print("note: `--method group` keeps groups together")
    _say_what_is_whole(found)


def _say_how_far_off(split: Split) -> None:
    """Say which parts whole groups have made much larger or smaller than asked for."""
    if split.method.get("method") != "group":
        return
    for name in ("valid", "test"):
        asked, found = float(split.method.get(name, 0)), len(split.rows[name])
        wanted = round(asked * len(split.dataset)) if asked < 1 else int(asked)
        if asked and not wanted / 2 <= found <= 2 * wanted:
            print(
                f"note: {name} has {found:,} structures, {wanted:,} were asked for: groups by "
                f"{split.method['groups']} are few or large; smaller ones may be a tag (--groups)"
            )


def _say_what_is_whole(found: Leaks) -> None:
    if not found.groups:
        print(f"checked: each of {found.n_groups:,} groups by {found.groups_by} is in one part")
    if not found.compared:
        print("not checked: equal structures, which would take long here (`--check` does it)")
    elif not found.n_equal:
        print("checked: no structure of valid or test is the same as one of a part before it")


def _check(args: Namespace) -> int:
    from epitaxy.dataset import Dataset
    from epitaxy.split import Split, leaks

    if len(args.dataset) > 1:
        raise SplitError("--check looks at one dataset; name others with --other DATASET FILE")
    places = [(args.dataset[0], args.check), *((Path(d), Path(f)) for d, f in args.other)]
    splits = [Split.load(file, Dataset.open(dataset)) for dataset, file in places]
    found = leaks(splits, args.groups)
    if args.json:
        print(json.dumps(found.to_mapping(), indent=1, ensure_ascii=False))
    else:
        for line in found.lines():
            print(f"leak: {line}")
        _say_what_is_whole(found)
    return 1 if found else 0


def _size(flag: str, text: str) -> float | int:
    try:
        return int(text) if text.strip().isdigit() else float(text)
    except ValueError:
        raise SplitError(f"{flag} {text!r}: give a fraction below 1 or a number") from None
