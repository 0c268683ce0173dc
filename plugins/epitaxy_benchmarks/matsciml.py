"""The development sets of Open MatSciML: rows of MP, OQMD, Alexandria, Carolina and LiPS as JSON.

Layout (https://github.com/IntelLabs/matsciml, matsciml/datasets/*/devset; Lee et al.,
arXiv 2309.05934): lists of rows as the databases give them, converted from LMDB to JSON.
- mp: SummaryDoc with structure (pymatgen), energy_per_atom, uncorrected_energy_per_atom,
  formation_energy_per_atom, band_gap, efermi; material_id was not requested.
- oqmd: REST rows with cell, sites ("Mn @ 0.75 0.25 0.5"), atomic_numbers, cart_coords, delta_e,
  stability (eV/atom), band_gap (eV).
- alexandria: structure (pymatgen), force, magmoms and targets.regression {energy_total, e_form,
  e_above_hull, band_gap_ind, total_mag, dos_ef}.
- carolina: fields of a CIF, atomic_numbers, cart_coords, energy (formation energy, eV/atom).

Traps: "cart_coords" of OQMD and of Carolina are fractional. OQMD's are compared with the fractional
coordinates in `sites`; Carolina's are fractional if all lie in one unit interval and would put
atoms closer than any bond if they were Å. What was corrected is counted in `notes` and tagged.
MP's energies are of several levels: where energy_per_atom and uncorrected_energy_per_atom differ by
more than any MP2020 correction, the raw energy is a GGA one and the other was put on the scale of
r2SCAN (MP's mixing scheme); the other raw energies are of either level. Methods say so.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np

from epitaxy.entry import Entry, Method, Origin
from epitaxy.errors import DataError
from epitaxy.protocols import Card
from epitaxy_benchmarks import streaming_json
from epitaxy_benchmarks.geometry import Geometry, crystal, from_pymatgen, number
from epitaxy_benchmarks.reading import Reading, existing_file, explained
from epitaxy_benchmarks.xyz_frames import frames

Kind = Literal["mp", "oqmd", "alexandria", "carolina", "lips"]
_CITATIONS: dict[str, str] = {
    "mp": "Jain et al., APL Mater. 1, 011002 (2013)",
    "oqmd": "Kirklin et al., npj Comput. Mater. 1, 15010 (2015)",
    "alexandria": "Schmidt et al., Mater. Today Phys. 48, 101560 (2024)",
    "carolina": "Zhao et al., Adv. Sci. 8, 2100566 (2021)",
    "lips": "Batzner et al., Nat. Commun. 13, 2453 (2022)",
}
_QUANTITIES: dict[str, tuple[str, ...]] = {
    "mp": ("energy", "formation_energy", "band_gap", "fermi_energy", "is_metal"),
    "oqmd": ("formation_energy", "energy_above_hull", "decomposition_energy", "band_gap"),
    "alexandria": (
        "energy",
        "forces",
        "magmoms",
        "magmom",
        "formation_energy",
        "energy_above_hull",
        "band_gap",
    ),
    "carolina": ("formation_energy",),
    "lips": ("energy", "forces"),
}
_METHODS: dict[str, Method] = {
    "mp": Method("VASP", "PBE(+U)"),
    "oqmd": Method("VASP", "PBE(+U)", "OQMD"),
    "alexandria": Method("VASP", "PBE(+U)", "Alexandria"),
    "carolina": Method("VASP", "PBE", "Carolina"),
    "lips": Method("VASP", "PBE", "AIMD"),
}
_LARGEST_CORRECTION = 5.0  # eV/atom: MP2020's stay below, the zeros of Ac differ by 64
_MIXED = Method("VASP", "GGA/GGA+U/r2SCAN mixed", "MP's corrections and mixing scheme")
_EITHER = Method("VASP", "PBE(+U) or r2SCAN", "not stated in the row")
_SHORTEST_BOND = 0.7  # Å: H2 has 0.74
_SAME = 1e-3  # of the cell; the text in `sites` has three digits


class MatscimlSource:
    """Reads one of the development sets; the rows say which one it is.

    Args:
        path: for example "oqmd_200.json.gz" or "lips_200.extxyz.gz".
        energies: MP's energies raw, as calculated, or with the corrections of MP2020.
    """

    def __init__(self, *, path: Path, energies: Literal["raw", "corrected"] = "raw"):
        self._path = existing_file(path)
        self._energies = energies
        self._kind = self._find_kind()
        self._reading = Reading()
        self.notes: tuple[str, ...] = ()
        """What was corrected on the way, one sentence each, after an iteration."""

    def _find_kind(self) -> Kind:
        if "xyz" in self._path.name:
            return "lips"
        row = streaming_json.first(self._path, "item")
        found: Kind | None = kind_of(row) if isinstance(row, dict) else None
        if found is None:
            keys = ", ".join(row) if isinstance(row, dict) else type(row).__name__
            raise DataError(f"{self._path}: not a development set of MatSciML: rows have {keys}")
        return found

    @property
    def card(self) -> Card:
        """What the data are."""
        return Card(
            title=f"Open MatSciML devset {self._kind}",
            quantities=_QUANTITIES[self._kind],
            license="MIT" if self._kind == "lips" else "CC-BY-4.0",
            citation=f"{_CITATIONS[self._kind]}; Lee et al., arXiv:2309.05934",
            url="https://github.com/IntelLabs/matsciml",
        )

    @property
    def fraction(self) -> float | None:
        """Part of the file that was read so far."""
        return self._reading.fraction

    def __iter__(self) -> Iterator[Entry]:
        """Yield the rows in the order of the file.

        Raises:
            DataError: the file is damaged or a row lacks a key; the message names it.
        """
        self._reading = reading = Reading([self._path])
        self.notes = ()
        n_corrected = n_rows = 0
        for entry in self._lips(reading) if self._kind == "lips" else self._rows(reading):
            n_rows += 1
            n_corrected += "positions" in entry.tags
            yield entry
        if n_corrected:
            self.notes = (
                f"cart_coords of {n_corrected:,} of {n_rows:,} entries are fractional, not Å, and "
                'were converted (tag positions = "were fractional")',
            )

    def _rows(self, reading: Reading) -> Iterator[Entry]:
        read = {
            "mp": self._mp,
            "oqmd": _oqmd,
            "alexandria": _alexandria,
            "carolina": _carolina,
        }[self._kind]
        license = self.card.license
        origin = Origin(url=self._path.name, database=f"MatSciML {self._kind}", license=license)
        for index, row in enumerate(streaming_json.items(self._path, "item", reading)):
            with explained(f"{self._path}: row {index}", f"MatSciML's {self._kind} set"):
                name, structure, targets, tags = read(row, index)
                method = self._mp_method(row) if self._kind == "mp" else _METHODS[self._kind]
                entry = structure.entry(targets, id=name, method=method, origin=origin, tags=tags)
            yield entry

    def _mp_method(self, row: dict[str, Any]) -> Method:
        if self._energies == "corrected":
            return _MIXED
        raw, mixed = (
            number(row.get(f"{prefix}energy_per_atom")) for prefix in ("uncorrected_", "")
        )
        if raw is None or mixed is None or abs(raw - mixed) <= _LARGEST_CORRECTION:
            return _EITHER
        return _METHODS["mp"]

    def _lips(self, reading: Reading) -> Iterator[Entry]:
        origin = Origin(url=self._path.name, database="MatSciML lips", license="MIT")
        for index, (structure, values) in enumerate(frames(self._path, reading)):
            with explained(f"{self._path}: frame {index}", "MatSciML's lips set"):
                entry = structure.entry(
                    {"energy": values["energy"], "forces": values["forces"]},
                    id=f"lips#{index}",
                    method=_METHODS["lips"],
                    origin=origin,
                )
            yield entry

    def _mp(self, row: dict[str, Any], index: int) -> _Read:
        structure = from_pymatgen(row["structure"])
        prefix = "uncorrected_" if self._energies == "raw" else ""
        per_atom = number(row.get(f"{prefix}energy_per_atom"))
        metal = row.get("is_metal")
        targets = {
            "energy": None if per_atom is None else per_atom * len(structure.numbers),
            "formation_energy": number(row.get("formation_energy_per_atom")),
            "band_gap": number(row.get("band_gap")),
            "fermi_energy": number(row.get("efermi")),
            "is_metal": None if metal is None else float(metal),
        }
        given = row.get("material_id")
        return (str(given) if given else f"mp_summary#{index}", structure, targets, {})


_Read = tuple[str, Geometry, dict[str, Any], dict[str, str]]


def kind_of(row: dict[str, Any]) -> Literal["mp", "oqmd", "alexandria", "carolina"] | None:
    """Return which development set a row is of, by its keys."""
    if "delta_e" in row and "cart_coords" in row:
        return "oqmd"
    if "targets" in row and "structure" in row and "entry_id" in row:
        return "alexandria"
    if "cart_coords" in row and "_cell_length_a" in row:
        return "carolina"
    if "formula_pretty" in row and "structure" in row and "energy_per_atom" in row:
        return "mp"
    return None


def _oqmd(row: dict[str, Any], index: int) -> _Read:
    cell = np.array(row["cell"], dtype=np.float64)
    given = np.array(row["cart_coords"], dtype=np.float64).reshape(-1, 3)
    sites = [text.split("@")[1].split() for text in row["sites"]]
    fractions = np.array(sites, dtype=np.float64).reshape(-1, 3)
    if given.shape != fractions.shape:
        raise DataError(f"{len(given)} cart_coords but {len(fractions)} sites")
    tags = {}
    if _agree(given, fractions):
        structure = crystal(row["atomic_numbers"], given, cell)
        tags = {"positions": "were fractional"}
    elif _agree(given @ np.linalg.inv(cell), fractions):
        structure = crystal(row["atomic_numbers"], given @ np.linalg.inv(cell), cell)
    else:
        raise DataError(
            "cart_coords agree with `sites` neither as fractions of the cell nor as Å: "
            f"{given[0].tolist()} against {fractions[0].tolist()}"
        )
    stability = number(row.get("stability"))
    targets = {
        "formation_energy": number(row.get("delta_e")),
        "decomposition_energy": stability,
        "energy_above_hull": None if stability is None else max(0.0, stability),
        "band_gap": number(row.get("band_gap")),
    }
    if row.get("prototype"):
        tags["prototype"] = str(row["prototype"])
    return f"oqmd-{row['entry_id']}", structure, targets, tags


def _agree(first: np.ndarray, second: np.ndarray) -> bool:
    difference = first - second
    return bool(np.abs(difference - np.rint(difference)).max() < _SAME)


def _alexandria(row: dict[str, Any], index: int) -> _Read:
    structure = from_pymatgen(row["structure"])
    values = row["targets"]["regression"]
    targets = {
        "energy": number(values.get("energy_total")),
        "forces": row.get("force"),
        "magmoms": row.get("magmoms"),
        "magmom": number(values.get("total_mag")),
        "formation_energy": number(values.get("e_form")),
        "energy_above_hull": number(values.get("e_above_hull")),
        "band_gap": number(values.get("band_gap_ind")),
    }
    return str(row["entry_id"]), structure, targets, {}


def _carolina(row: dict[str, Any], index: int) -> _Read:
    from ase.geometry import cellpar_to_cell

    names = ("length_a", "length_b", "length_c", "angle_alpha", "angle_beta", "angle_gamma")
    cell = cellpar_to_cell([float(row[f"_cell_{name}"]) for name in names])
    given = np.array(row["cart_coords"], dtype=np.float64).reshape(-1, 3)
    tags = {}
    fractions = given @ np.linalg.inv(cell)
    if _looks_fractional(given):
        fractions, tags = given, {"positions": "were fractional"}
    structure = crystal(row["atomic_numbers"], fractions, cell)
    name = f"carolina-{Path(row['origin_file']).stem}"
    return name, structure, {"formation_energy": number(row["energy"])}, tags


def _looks_fractional(coordinates: np.ndarray) -> bool:
    """Whether coordinates lie in one unit interval and are too close to be Å."""
    if coordinates.min() < -1e-6 or coordinates.max() > 1 + 1e-6:
        return False
    if len(coordinates) == 1:
        return True  # the first atom of a cell is at its origin either way
    from scipy.spatial.distance import pdist

    return bool(pdist(coordinates).min() < _SHORTEST_BOND)
