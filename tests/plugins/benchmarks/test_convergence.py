"""The embedded convergence study is whole, and its densities of states count electrons."""

from dataclasses import replace
from functools import cache
from itertools import pairwise, product

import numpy as np
import pytest

from epitaxy.curation.frames import structure_key
from epitaxy.dataset import Dataset
from epitaxy.entry import Entry
from epitaxy.errors import DataError, OptionError
from epitaxy.registry import Registry
from epitaxy.spectra import fingerprints, tanimoto
from epitaxy_benchmarks import tetrahedra
from epitaxy_benchmarks.convergence import GRID, GpawConvergenceSource


@cache
def study(**options: object) -> dict[str, Entry]:
    source = GpawConvergenceSource(**options)  # type: ignore[arg-type]
    return {entry.id: entry for entry in source}


@cache
def stored() -> dict[str, dict[str, object]]:
    return {c["id"]: c for c in GpawConvergenceSource().data["calculations"]}


def electrons_below_the_gap(entry: Entry) -> float:
    """Integrate the density of states from -10 eV to the middle of the gap."""
    filled = float(entry.targets["band_gap"]) / 2 >= GRID
    return float(np.trapezoid(entry.targets["dos"][filled], GRID[filled]))


def test_the_study_is_whole_and_says_where_it_comes_from():
    source = GpawConvergenceSource()
    dataset = Dataset.from_entries(source)
    assert len(dataset) == source.provenance["n_calculations"] >= 60
    assert len(set(dataset.ids)) == len(dataset)
    assert set(dataset.targets) == {"energy", "band_gap", "dos"}
    assert all(dataset.target(name)[1].all() for name in dataset.targets)
    assert source.card.license == "CC0-1.0"
    assert dataset.methods[0].code == f"GPAW {source.provenance['versions']['gpaw']}"
    assert {"LDA", "PBE"} <= set(dataset.tag("xc"))
    assert set(dataset.tag("material")) == {"h-BN", "Si"}


def test_every_combination_is_there_once():
    entries = list(study(part="combinations").values())
    names = ("material", "xc", "basis", "kpoints")
    settings = {tuple(entry.tags[name] for name in names) for entry in entries}
    assert len(settings) == len(entries)
    for material in ("h-BN", "Si"):
        n = [len({s[i] for s in settings if s[0] == material}) for i in (1, 2, 3)]
        assert sum(s[0] == material for s in settings) == np.prod(n)


def test_calculations_with_other_settings_are_not_taken_for_duplicates():
    keys = {structure_key(entry) for entry in study().values()}
    assert len(keys) == len(study())


def test_weights_are_those_of_the_whole_grid():
    for name, grid in GpawConvergenceSource().data["grids"].items():
        assert sum(grid["weights"]) == pytest.approx(1, abs=1e-9)
        counts = np.bincount(grid["irreducible"], minlength=len(grid["weights"]))
        assert counts / counts.sum() == pytest.approx(grid["weights"], abs=1e-9), name


@pytest.mark.parametrize("name", ["Si-LDA-dzp-4x4x4", "h-BN-PBE-pw-400-4x4x2"])
def test_tetrahedra_are_those_of_ase(name):
    from ase.dft.dos import linear_tetrahedron_integration

    source = GpawConvergenceSource(integration="tetrahedra")
    calculation = source.data["calculations"][list(stored()).index(name)]
    grid = source.data["grids"][f"{calculation['material']} {name.rpartition('-')[2]}"]
    cell = np.array(source.data["crystals"][calculation["material"]]["cell"])
    bands = np.array(calculation["bands"])[grid["irreducible"]].reshape(*calculation["kpoints"], -1)
    theirs = 2 * linear_tetrahedron_integration(cell, bands, GRID)
    ours = source.density_of_states(calculation)
    assert np.abs(np.cumsum(ours - theirs)).max() * 0.01 < 0.06
    smooth = np.ones(20) / 20
    apart = np.convolve(ours - theirs, smooth, mode="valid")
    assert np.abs(apart).mean() < 0.05 * ours.mean()


def test_tetrahedra_lose_no_state():
    rng = np.random.default_rng(0)
    bands = np.sort(rng.normal(size=(4, 3, 2, 5)), axis=-1)
    bands[..., 2] = 0.3  # a flat band
    energies = np.linspace(-6, 6, 241)
    dos = tetrahedra.density_of_states(bands, rng.normal(size=(3, 3)), energies)
    assert dos.sum() * 0.05 == pytest.approx(5, abs=1e-9)
    assert (dos >= -1e-9).all()


def test_each_point_of_the_full_grid_has_the_length_of_its_irreducible_point():
    """Symmetry keeps the distance to the nearest reciprocal lattice point."""
    data = GpawConvergenceSource().data
    shifts = np.array(list(product((-1, 0, 1), repeat=3)))
    for name, grid in data["grids"].items():
        material, _, kpoints = name.partition(" ")
        reciprocal = np.linalg.inv(np.array(data["crystals"][material]["cell"])).T

        def length(points: np.ndarray, reciprocal: np.ndarray = reciprocal) -> np.ndarray:
            near = (points - np.round(points))[:, None] + shifts
            return np.linalg.norm(near @ reciprocal, axis=2).min(axis=1)

        axes = [
            ((np.arange(n) + 0.5) / n - 0.5 + (n % 2 == 0) * 0.5 / n)
            for n in map(int, kpoints.split("x"))
        ]
        full = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
        irreducible = np.array(grid["points"])[grid["irreducible"]]
        assert length(full) == pytest.approx(length(irreducible), abs=1e-7), name


def test_the_highest_filled_energy_is_zero_and_the_gap_follows():
    for name, calculation in stored().items():
        bands = np.array(calculation["bands"])
        n_filled = calculation["n_electrons"] // 2  # type: ignore[operator]
        assert bands[:, n_filled - 1].max() == 0, name
        assert bands[:, n_filled].min() == pytest.approx(calculation["band_gap"], abs=2e-4)
        assert (np.diff(bands, axis=1) >= 0).all(), name


def test_gaussians_count_the_electrons_that_the_eigenvalues_hold():
    grids = GpawConvergenceSource().data["grids"]
    narrow = study(width=0.02)
    for name, calculation in stored().items():
        bands = np.array(calculation["bands"])
        kpoints = "x".join(str(n) for n in calculation["kpoints"])  # type: ignore[attr-defined]
        weights = np.array(grids[f"{calculation['material']} {kpoints}"]["weights"])
        near = (bands > -10.3) & (bands < -9.7)  # would be cut by the lower end of the grid
        within = ((bands > -10) & (bands <= 0) & ~near) * weights[:, None]
        share = (near * weights[:, None]).sum()
        counted = electrons_below_the_gap(narrow[name])
        assert 2 * within.sum() - 1e-6 <= counted <= 2 * (within.sum() + share) + 1e-6, name


def test_tetrahedra_agree_with_gaussians_where_there_are_many_kpoints():
    """Smoothed in the same way, both come to say the same."""
    source = GpawConvergenceSource(integration="tetrahedra")
    smooth = np.exp(-0.5 * ((GRID[:401] - GRID[200]) / 0.4) ** 2)
    smooth /= smooth.sum()
    apart = []
    for kpoints in ("4x4x4", "12x12x12"):
        name = f"Si-PBE-pw-200-{kpoints}"
        calculation = source.data["calculations"][list(stored()).index(name)]
        spectra = study()[name].targets["dos"], source.density_of_states(calculation)
        a, b = (np.convolve(dos, smooth, mode="same")[200:-200] for dos in spectra)
        apart.append(np.abs(a - b).mean() / a.mean())
    assert apart[1] < 0.06 < apart[0]


@pytest.mark.parametrize("material", ["h-BN", "Si"])
def test_more_plane_waves_lower_the_energy(material):
    for xc in ("LDA", "PBE"):
        entries = [
            e for e in study().values() if (e.tags["material"], e.tags["xc"]) == (material, xc)
        ]
        for kpoints in {entry.tags["kpoints"] for entry in entries}:
            waves = {
                int(entry.tags["cutoff"].removesuffix(" eV")): float(entry.targets["energy"])
                for entry in entries
                if entry.tags["kpoints"] == kpoints and "cutoff" in entry.tags
            }
            energies = [waves[cutoff] for cutoff in sorted(waves)]
            assert all(b < a for a, b in pairwise(energies)), (xc, kpoints)


def test_converged_calculations_are_more_alike_than_unconverged_ones():
    entries = [e for e in study(material="Si", xc="PBE").values() if e.tags["basis"] == "pw300"]
    entries.sort(key=lambda entry: int(entry.tags["n_kpoints"]))
    found = fingerprints(GRID, np.array([entry.targets["dos"] for entry in entries]))
    similarity = tanimoto(found, found)
    assert similarity[-1, -2] > similarity[-1, 0]


def test_options_select_and_wrong_ones_are_named():
    dense = study(part="dense").values()
    assert {(e.tags["material"], e.tags["xc"], e.tags["basis"]) for e in dense} == {
        ("h-BN", "PBE", "pw400"),
        ("Si", "PBE", "pw200"),
    }
    chosen = GpawConvergenceSource(material="Si", xc="LDA")
    assert {(e.tags["material"], e.tags["xc"]) for e in chosen} == {("Si", "LDA")}
    with pytest.raises(OptionError, match="width = 0"):
        GpawConvergenceSource(width=0)
    name = "Si-PBE-pw-300-4x4x4"
    wide = next(
        e for e in GpawConvergenceSource(material="Si", xc="PBE", width=0.3) if e.id == name
    )
    assert wide.tags["dos_integration"] == "Gaussians, 0.3 eV"
    assert wide.targets["dos"].max() < study()[name].targets["dos"].max()
    assert replace(wide, targets={}).method == study()[name].method


def test_a_damaged_file_is_noticed(monkeypatch):
    source = GpawConvergenceSource()
    monkeypatch.setitem(source.provenance, "sha256", "0" * 64)
    with pytest.raises(DataError, match="damaged or edited"):
        next(iter(source))


def test_the_registry_offers_it():
    source = Registry.from_entry_points().build("source", {"use": "gpaw_convergence", "xc": "PBE"})
    assert next(iter(source)).method.xc_functional == "PBE"
