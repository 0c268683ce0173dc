"""`epitaxy convert`: published weights of other programs as an artifact."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from epitaxy.errors import ArtifactError, CapabilityError

if TYPE_CHECKING:
    from epitaxy.property_model import PropertyModel

_ROCK_SALT = 5.69  # Å, NaCl: a compound, because a wrong direction of the edges hides in elements


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("kind", choices=("megnet",), help="megnet: Keras, FILE.hdf5 + FILE.json")
    parser.add_argument("file", type=Path, help="the weights")
    parser.add_argument("-o", "--output", type=Path, required=True, help="artifact to make")
    parser.add_argument("--target", help="quantity that it predicts (default: what the file says)")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing artifact")


def run(args: Namespace) -> int:
    """Read, check, write and return 0."""
    from epitaxy.artifact import save_artifact
    from epitaxy.registry import Registry
    from epitaxy_graphs.megnet_keras import convert, read_keras

    if args.output.exists() and not args.overwrite:
        raise ArtifactError(f"{args.output}: exists; use --overwrite or choose another name")
    found = read_keras(args.file)
    target = args.target or found.target
    if target is None:
        raise CapabilityError(
            f"{args.file} does not say what it predicts (name {found.metadata.get('name')!r}): "
            f"give --target, for example --target formation_energy"
        )
    model = convert(found, target=target, registry=Registry.from_entry_points())
    text = f"NaCl, a = {_ROCK_SALT} Å: {target} {_of_rock_salt(model, target):.3f}"
    model.lineage["check"] = text  # type: ignore[attr-defined]
    save_artifact(model, args.output, overwrite=args.overwrite)
    n_parameters = sum(p.numel() for p in model.network.parameters())
    print(f"{args.output}: {model!r}, {n_parameters:,} parameters")
    print(f"  {len(found.elements)} elements have data; edges: {model.lineage['edges']}")  # type: ignore[attr-defined]
    print(f"  {text}")
    return 0


def _of_rock_salt(model: PropertyModel, target: str) -> float:
    from ase.build import bulk

    from epitaxy.dataset import Dataset
    from epitaxy.entry import Entry

    salt = Entry.from_atoms(bulk("NaCl", "rocksalt", a=_ROCK_SALT), targets={}, id="NaCl")
    return float(model.predict(Dataset.from_entries([salt])).mean[target][0])
