"""`epitaxy ingest`: read files or a database into a checked dataset."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from epitaxy.errors import ConfigError, DataError

if TYPE_CHECKING:
    from epitaxy.curation.frames import FrameChecks
    from epitaxy.curation.ingest import IngestReport
    from epitaxy.registry import Registry


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "source",
        nargs="+",
        help="name of a source (`epitaxy plugins` lists them) or a file; several are joined",
    )
    parser.add_argument("-o", "--output", type=Path, required=True, help="dataset to make")
    parser.add_argument(
        "--option",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="option of the source (`epitaxy show SOURCE` lists them); VALUE is read as YAML",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an existing dataset")
    parser.add_argument(
        "--tag", action="append", default=[], metavar="NAME=TEXT", help="add a tag to every frame"
    )
    parser.add_argument("--strict", action="store_true", help="stop at the first unusable frame")
    parser.add_argument(
        "--keep-going",
        action="store_true",
        help="if a file is cut or damaged, keep the complete frames before",
    )
    add_check_arguments(parser)
    labels = parser.add_argument_group("how the labels are stored, if not in ASE's units and signs")
    labels.add_argument("--energy-unit", metavar="UNIT", help="eV, Hartree, Ry, kcal/mol, kJ/mol")
    labels.add_argument("--energy-per-atom", action="store_true", help="energies are per atom")
    labels.add_argument(
        "--forces-unit", metavar="UNIT", help="eV/Å, eV/Bohr, Hartree/Bohr, Ry/Bohr, kcal/mol/Å"
    )
    labels.add_argument(
        "--forces-are-gradients", action="store_true", help="forces have the other sign"
    )
    labels.add_argument("--stress-unit", metavar="UNIT", help="eV/Å^3, GPa, kbar, Hartree/Bohr^3")
    labels.add_argument("--stress-order", metavar="ORDER", help="ase, vasp or such as xx,yy,...")
    labels.add_argument(
        "--stress-is-pressure", action="store_true", help="stress is positive under compression"
    )
    labels.add_argument(
        "--stress-is-virial", action="store_true", help="stress was multiplied by the volume"
    )
    labels.add_argument(
        "--positions-unit", metavar="UNIT", help="Å, fractional (of the cell), m, nm or Bohr"
    )


def add_check_arguments(parser: ArgumentParser) -> None:
    """Declare the checks that `ingest` and `clean` share."""
    group = parser.add_argument_group("checks")
    group.add_argument(
        "--require",
        action="append",
        metavar="TARGET",
        help="targets that a frame must have (default: energy or a property as band_gap, where "
        "there are energies and forces; 'none' for no requirement)",
    )
    group.add_argument("--max-force", type=_size, metavar="F", help="eV/Å (default: 100)")
    group.add_argument(
        "--max-energy",
        type=_size,
        metavar="E",
        help="largest |energy|, eV/atom (default: 1e6)",
    )
    group.add_argument("--min-distance", type=_size, metavar="D", help="Å (default: 0.1)")
    group.add_argument(
        "--limit",
        action="append",
        default=[],
        metavar="NAME=LOW:HIGH",
        help="change a physical range, as energy_above_hull=-1:8; NAME=none takes it away",
    )
    group.add_argument("--keep-duplicates", action="store_true", help="keep repeated structures")
    group.add_argument(
        "--on-inconsistent",
        choices=("error", "warn"),
        default="error",
        help="what to do if labels contradict each other (default: error)",
    )
    group.add_argument(
        "--no-consistency-check", action="store_true", help="do not compare labels with each other"
    )


def _size(text: str) -> float:
    """Read a number that is not negative."""
    try:
        value = float(text)
    except ValueError:
        raise ArgumentTypeError(f"{text!r} is not a number") from None
    if not value >= 0:
        raise ArgumentTypeError(f"{text} given, 0 or more needed")
    return value


def checks_of(args: Namespace) -> FrameChecks:
    """Return the checks that the arguments describe; `require` is None if nothing was said."""
    from epitaxy.curation.frames import FrameChecks
    from epitaxy.quantities import quantity

    require = tuple(args.require) if args.require else None
    if require == ("none",):
        require = ()
    for name in require or ():
        quantity(name)
    given = {
        name: getattr(args, name)
        for name in ("max_force", "max_energy", "min_distance")
        if getattr(args, name) is not None
    }
    return FrameChecks(
        require=require,
        limits=dict(_limit(text) for text in args.limit),
        duplicates=not args.keep_duplicates,
        **given,
    )


def _limit(text: str) -> tuple[str, tuple[float, float] | None]:
    """Read "energy_above_hull=-1:8" or "band_gap=none"."""
    from epitaxy.quantities import quantity

    name, _, values = text.partition("=")
    if values == "none":
        return quantity(name).name, None
    low, _, high = values.partition(":")
    try:
        limit = (float(low), float(high))
    except ValueError:
        raise ConfigError(f"--limit {text!r}: write it as NAME=LOW:HIGH or NAME=none") from None
    return quantity(name).name, limit


def run(args: Namespace) -> int:
    """Read, check and write; return 0."""
    from epitaxy.commands.ingest_progress import telling
    from epitaxy.curation.conventions import Conventions
    from epitaxy.curation.ingest import ingest
    from epitaxy.registry import Registry

    registry = Registry.from_entry_points()
    options = _pairs(args.option, "--option", as_yaml=True)
    specs = [_spec(registry, name, options) for name in args.source]
    names = (
        "energy_unit",
        "energy_per_atom",
        "forces_unit",
        "forces_are_gradients",
        "stress_unit",
        "stress_order",
        "stress_is_pressure",
        "stress_is_virial",
        "positions_unit",
    )
    conventions = Conventions(**{n: getattr(args, n) for n in names if getattr(args, n)})
    with telling(" ".join(args.source)) as tell:
        report = ingest(
            [registry.build("source", spec) for spec in specs],
            args.output,
            checks=checks_of(args),
            conventions=conventions,
            tags=_pairs(args.tag, "--tag", as_yaml=False),
            on_inconsistent="skip" if args.no_consistency_check else args.on_inconsistent,
            strict=args.strict,
            keep_going=args.keep_going,
            overwrite=args.overwrite,
            tell=tell,
            recipes=[_kept(spec) for spec in specs],
        )
    print_report(report, args.output)
    return 0


def _kept(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Return what of a spec belongs into a history that others will read.

    Where this machine has its keys and its cache does not.
    """
    return {
        name: str(value) if isinstance(value, Path) else value
        for name, value in spec.items()
        if name != "cache" and not name.endswith(("key_file", "token_file"))
    }


def print_report(report: IngestReport, path: Path) -> None:
    """Say what was dropped, what the labels say about each other, and what there is now."""
    for line in report.rejections.lines():
        print(line)
    for warning in report.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    if report.consistency is not None:
        for finding in report.consistency.findings:
            print(finding)
    n_seen = report.rejections.n_seen
    print(f"{n_seen - report.rejections.n_dropped:,} of {n_seen:,} frames kept")
    n_atoms = int(report.dataset.n_atoms.sum())
    print(
        f"{path}: {len(report.dataset):,} structures, {n_atoms:,} atoms, "
        f"digest {report.dataset.digest[:12]}"
    )


def _spec(registry: Registry, name: str, options: dict[str, Any]) -> dict[str, Any]:
    known = {offer.component.name for offer in registry.offers["source"]}
    known |= {offer.qualified_name for offer in registry.offers["source"]}
    path = Path(name)
    if name in known and not path.exists():
        return {"use": name, **options}
    is_pattern = any(c in name for c in "*?[")
    if not path.exists() and not is_pattern:
        looks_like_path = "/" in name or "." in name
        if looks_like_path:
            raise DataError(f"{name}: no such file")
        registry.find("source", name)  # raises, with the nearest match
    use = registry.identify(path)
    if use is None and _is_stored(path):
        raise DataError(
            f"{name}: is a dataset already, checked and stored; `epitaxy clean {path} -o OTHER` "
            f"checks it anew, `epitaxy merge {path} MORE -o BOTH` joins it with others, `epitaxy "
            f"export {path} FILE` writes it for other programs, and `epitaxy info {path}` says "
            "what is in it"
        )
    if use is None:
        raise DataError(
            f"{name}: no plugin recognises this file; name its source, for example "
            f"`epitaxy ingest files --option path={name} --option format=...`"
        )
    return {"use": use, "path": name, **options}


def _is_stored(path: Path) -> bool:
    from epitaxy.stores.memory_map import is_dataset

    return is_dataset(path)


def _pairs(texts: list[str], flag: str, *, as_yaml: bool) -> dict[str, Any]:
    import yaml

    pairs: dict[str, Any] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise ConfigError(f"{flag} {text!r}: write it as KEY=VALUE")
        try:
            pairs[key] = yaml.safe_load(value) if as_yaml else value
        except yaml.YAMLError as error:
            raise ConfigError(f"{flag} {text!r}: the value is not YAML: {error}") from error
    return pairs
