"""Labels and coordinates in other units, turned into ours."""

from __future__ import annotations

from dataclasses import fields

from epitaxy.curation.conventions import Conventions
from epitaxy.curation.step import recorded
from epitaxy.dataset import Dataset
from epitaxy.stores.columns import Columns


def convert(
    dataset: Dataset,
    *,
    energy_unit: str = "eV",
    energy_per_atom: bool = False,
    forces_unit: str = "eV/Å",
    forces_are_gradients: bool = False,
    stress_unit: str = "eV/Å^3",
    stress_order: str = "ase",
    stress_is_pressure: bool = False,
    stress_is_virial: bool = False,
    positions_unit: str = "Å",
    ids: tuple[str, ...] = (),
) -> Dataset:
    """Convert labels and coordinates that are stored in other units, signs or orders.

    Args:
        dataset: to convert, all of it.
        energy_unit: eV, Hartree, Ry, kcal/mol, kJ/mol, J.
        energy_per_atom: energies are per atom.
        forces_unit: eV/Å, eV/Bohr, Hartree/Bohr, Ry/Bohr, kcal/mol/Å ...
        forces_are_gradients: forces have the other sign.
        stress_unit: eV/Å^3, GPa, kbar, Hartree/Bohr^3 ...
        stress_order: ase, vasp or such as xx,yy,...
        stress_is_pressure: stress is positive under compression.
        stress_is_virial: stress was multiplied by the volume.
        positions_unit: Å, fractional (of the cell), m, nm or Bohr.
        ids: only these entries; all by default.
    """
    given = locals()
    names = [field.name for field in fields(Conventions)]
    conventions = Conventions(**{name: given[name] for name in names})
    chosen = set(ids)
    changed = Columns.from_entries(
        [conventions.apply(e) if not ids or e.id in chosen else e for e in dataset]
    )
    n_changed = sum(1 for name in dataset.ids if name in chosen) if ids else len(dataset)
    return recorded(
        dataset,
        Dataset(changed, history=dataset.history),
        "convert",
        options={**conventions.changes, **({"ids": list(ids)} if ids else {})},
        counts={"n_seen": len(dataset), "n_changed": n_changed},
    )
