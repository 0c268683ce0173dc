"""Makes the example upload of the plugin for NOMAD from a trained model.

    epitaxy train silicon.yaml
    epitaxy ingest silicon --option xc=PBE -o silicon-data
    python make.py runs/silicon silicon-data EXAMPLE

It copies the model with its configuration and split, the data, and adds structures that the model
has not seen: silicon cells of the LDA set that are not in the PBE set, one of each kind, and
germanium, which the model does not know.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

from ase.build import bulk
from ase.data import chemical_symbols

from epitaxy.entry import Entry
from epitaxy.registry import Registry
from epitaxy.spec import Spec

METRE = 1e-10  # per Å


def main(run: Path, data: Path, example: Path) -> None:
    """Fill the folder of the example; its README.md stays."""
    for name, source in (("silicon-model/artifact", run / "artifact"), ("silicon-data", data)):
        shutil.rmtree(example / name, ignore_errors=True)
        shutil.copytree(source, example / name)
    for name in ("config.yaml", "split.json"):
        shutil.copy(run / name, example / "silicon-model")
    for file in example.rglob("*"):
        if file.is_file():
            file.chmod(0o644)
    structures = example / "structures"
    shutil.rmtree(structures, ignore_errors=True)
    structures.mkdir()
    for name, entry in unseen():
        text = json.dumps(archive(entry, name), indent=1) + "\n"
        (structures / f"{name}.archive.json").write_text(text, encoding="utf-8")


def unseen() -> list[tuple[str, Entry]]:
    """Return named structures that are not in the PBE set."""
    registry = Registry.from_entry_points()
    known = {e.id for e in registry.build("source", Spec("silicon", {"xc": "PBE"}))}
    found: dict[str, Entry] = {}
    for entry in registry.build("source", Spec("silicon", {"xc": "LDA"})):
        if entry.id not in known:
            found.setdefault(f"silicon-{entry.tags['kind']}", entry)
    germanium = bulk("Ge", "diamond", a=5.66, cubic=True)
    return [*found.items(), ("germanium", Entry.from_atoms(germanium))]


def archive(entry: Entry, name: str) -> dict[str, object]:
    """Return an archive of NOMAD with the structure, as OPTIMADE words it, in metres."""
    symbols = [chemical_symbols[z] for z in entry.numbers]
    elements = sorted(set(symbols))
    structure = {
        "dimension_types": [int(p) for p in entry.pbc],
        "lattice_vectors": (entry.cell * METRE).tolist(),
        "cartesian_site_positions": (entry.positions * METRE).tolist(),
        "n_sites": len(symbols),
        "species_at_sites": symbols,
        "species": [{"name": s, "chemical_symbols": [s], "concentration": [1.0]} for s in elements],
    }
    return {
        "metadata": {"entry_name": name},
        "results": {
            "material": {"elements": elements},
            "properties": {"structures": {"structure_original": structure}},
        },
    }


if __name__ == "__main__":
    main(*(Path(argument) for argument in sys.argv[1:]))
