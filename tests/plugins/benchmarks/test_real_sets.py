"""Readers of public sets on the real files: counts, published facts, and the known defects."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from epitaxy.curation.consistency import check_consistency
from epitaxy.dataset import Dataset
from epitaxy.folds import matbench_folds
from epitaxy.registry import Registry
from epitaxy_benchmarks.alignn import AlignnSource
from epitaxy_benchmarks.castelli import CastelliSource
from epitaxy_benchmarks.composition_table import CompositionTableSource
from epitaxy_benchmarks.jarvis import JarvisSource
from epitaxy_benchmarks.leaderboard import QUANTITIES, Labels
from epitaxy_benchmarks.matbench import MatbenchSource
from epitaxy_benchmarks.matcalc import MatcalcSource
from epitaxy_benchmarks.matsciml import MatscimlSource
from epitaxy_benchmarks.metatrain import MetatrainSource
from epitaxy_benchmarks.oxide_polymorphs import OxidePolymorphsSource

DATA = Path(__file__).parents[4] / "shared" / "data"
pytestmark = pytest.mark.skipif(not DATA.exists(), reason="needs ../shared/data")
LEADERBOARD = DATA / "jarvis_leaderboard"


def read(source: Callable[..., Any], path: str, **options: Any) -> tuple[Any, Dataset]:
    file = DATA / path
    if not file.exists():
        pytest.skip(f"needs ../shared/data/{path}")
    built = source(path=file, **options)
    return built, Dataset.from_entries(built)


def verdicts(dataset: Dataset) -> dict[str, str]:
    return {finding.label: finding.verdict for finding in check_consistency(dataset).findings}


@pytest.mark.parametrize(
    ("pattern", "source"),
    [
        ("matbench_phonons/*.json.gz", "matbench"),
        ("composition_tables/*/*.csv.xz", "composition_table"),
        ("castelli_perov5/cdvae*", "castelli"),
        ("castelli_perov5/matbench*", "composition_table"),
        ("castelli_perov5/jarvis*", "jarvis"),
        ("mp_matcalc/*-20*.json.gz", "matcalc"),
        ("jarvis_leaderboard/dft_3d_Tc*", "jarvis"),
        ("oxide_polymorphs_4xc/*.xz", "oxide_polymorphs"),
        ("mlearn/*_t*.xz", "mlearn"),
        ("mlearn/*_alignn*.xz", "alignn"),
        ("matsciml_devsets/[aclmo]*", "matsciml"),
        ("metatrain_small/*.xz", "metatrain"),
    ],
)
def test_the_files_are_recognised(pattern: str, source: str) -> None:
    registry = Registry.from_entry_points()
    files = sorted(DATA.glob(pattern))
    if not files:
        pytest.skip(f"needs ../shared/data/{pattern}")
    # roost_* and others have names of known tables; unknown ones still have the usual columns
    assert {registry.identify(file) for file in files} == {source}


def test_matbench_phonons_is_complete_and_gives_the_official_dummy_error() -> None:
    source, dataset = read(MatbenchSource, "matbench_phonons/matbench_phonons.json.gz")
    assert source.notes == ()
    values, mask = dataset.target("last_phonon_peak")
    assert len(dataset) == 1265
    assert mask.all()
    assert (dataset.ids[0], dataset.ids[-1]) == ("mb-phonons-0001", "mb-phonons-1265")
    assert values.min() == pytest.approx(59.5858, abs=1e-3)
    assert values.max() == pytest.approx(3643.74, abs=0.01)
    folds = matbench_folds(len(dataset))
    error = np.mean([np.abs(values[test] - values[train].mean()).mean() for train, test in folds])
    assert error == pytest.approx(323.9822, abs=1e-4)  # leaderboard, dummy


def test_the_composition_table_of_phonons_has_the_same_rows_and_ids() -> None:
    _, structures = read(MatbenchSource, "matbench_phonons/matbench_phonons.json.gz")
    _, formulas = read(CompositionTableSource, "composition_tables/matbench/phonons.csv.xz")
    assert list(structures.ids) == list(formulas.ids)
    name = "last_phonon_peak"
    assert np.array_equal(structures.target(name)[0], formulas.target(name)[0])
    assert (
        np.array_equal(  # the same composition, row by row
            [sorted(set(entry.numbers)) for entry in structures][:200],
            [sorted(set(entry.numbers)) for entry in formulas][:200],
        )
        or [set(e.numbers) for e in structures] == [set(e.numbers) for e in formulas]
    )


@pytest.mark.parametrize(
    ("table", "n_rows", "quantity"),
    [
        ("matbench/steels_yield", 312, "yield_strength"),
        ("matbench/expt_is_metal", 4921, "is_metal"),
        ("matbench/glass", 5680, "is_glass_former"),
        ("benchmark/roost_expt-non-metals", 3895, "band_gap"),
        ("benchmark/mp_bulk_modulus__val", None, "bulk_modulus"),
    ],
)
def test_composition_tables_are_read_whole(table: str, n_rows: int | None, quantity: str) -> None:
    _, dataset = read(CompositionTableSource, f"composition_tables/{table}.csv.xz")
    assert n_rows is None or len(dataset) == n_rows
    assert dataset.targets == (quantity,)
    assert len(set(dataset.ids)) == len(dataset)


def test_the_energy_outlier_of_aflow_is_read_as_it_is() -> None:
    _, dataset = read(
        CompositionTableSource, "composition_tables/benchmark/aflow__energy_atom__train.csv.xz"
    )
    per_atom = dataset.target("energy")[0] / dataset.n_atoms
    assert per_atom.max() == pytest.approx(77.7, abs=0.1)
    assert int((per_atom > 30).sum()) == 3  # 33.6, 35.4 and 77.7 eV/atom: not to be trusted
    assert np.sort(per_atom)[-4] < 10


def test_castelli_validation_part_has_its_published_range() -> None:
    _, dataset = read(CastelliSource, "castelli_perov5/cdvae_perov5_val.csv.xz")
    heats, _ = dataset.target("perovskite_heat")
    assert len(dataset) == 3787
    assert (dataset.n_atoms == 5).all()
    assert heats.max() == pytest.approx(4.38, abs=0.01)
    assert heats.mean() == pytest.approx(1.39, abs=0.01)
    per_cell = dataset.target("decomposition_energy")[0] * 5
    assert (per_cell.min(), per_cell.max()) == pytest.approx((-0.38, 4.98))


def test_matcalc_binaries_are_joined_with_the_megnet_labels() -> None:
    labels = [LEADERBOARD / "megnet_e_form.json.zip", LEADERBOARD / "megnet_gappbe.json.zip"]
    path = "mp_matcalc/mp-binary-pbe-elasticity-2025.1.json.gz"
    source, dataset = read(MatcalcSource, path, labels=labels)
    assert len(dataset) == 3953
    assert int(dataset.target("formation_energy")[1].sum()) == 3821
    assert int(dataset.target("band_gap")[1].sum()) == 3821
    moduli, _ = dataset.target("bulk_modulus")
    assert (moduli.min(), moduli.max()) == pytest.approx((0.521, 411.0), abs=0.1)
    assert set(source.card.quantities) == set(dataset.targets)


def test_wbm_energies_agree_with_their_formation_energies() -> None:
    path = "mp_matcalc/wbm-random-pbe52-equilibrium-2025.1.json.gz"
    _, raw = read(MatcalcSource, path)
    _, corrected = read(MatcalcSource, path, energies="corrected")
    assert len(raw) == 972
    assert verdicts(raw)["energy"] == "consistent"
    shift = (corrected.target("energy")[0] - raw.target("energy")[0]) / raw.n_atoms
    assert shift == pytest.approx(
        corrected.target("formation_energy")[0] - raw.target("formation_energy")[0], abs=5e-3
    )


def test_alexandria_heat_capacities_stay_below_dulong_and_petit() -> None:
    _, dataset = read(MatcalcSource, "mp_matcalc/alexandria-binary-pbe-phonon-2025.1.json.gz")
    per_atom = dataset.target("heat_capacity")[0] / dataset.n_atoms
    assert len(dataset) == 1170
    assert per_atom.max() < 3 * 8.314 * 1.02  # J/(mol K), anharmonic parts left out
    assert per_atom.min() > 0


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        # two ids and one id are in the published train and test parts: they count as test
        ("dft_3d_formation_energy_peratom", (44569 - 2, 5572, 5572)),
        ("dft_3d_mbj_bandgap", (14535 - 1, 1817, 1815)),
        ("megnet_e_form", (60000, 5000, 4239)),
        ("edos_pdos_ph_dos", (11395, 1424, 1424)),
    ],
)
def test_leaderboard_files_have_their_published_sizes(name: str, parts: tuple[int, ...]) -> None:
    path = LEADERBOARD / f"{name}.json.zip"
    if not path.exists():
        pytest.skip(f"needs {path.name}")
    labels = Labels(path)
    assert labels.quantity == QUANTITIES[name]
    counts = [
        sum(labels.part(id) == part for id in labels.ids) for part in ("train", "val", "test")
    ]
    assert tuple(counts) == parts


def test_jarvis_superconductors_are_joined_with_formation_energies() -> None:
    labels = [LEADERBOARD / "dft_3d_formation_energy_peratom.json.zip"]
    path = "jarvis_leaderboard/dft_3d_Tc_supercon.json.zip"
    _, dataset = read(JarvisSource, path, labels=labels)
    assert len(dataset) == 1056
    assert int(dataset.target("formation_energy")[1].sum()) == 892


def test_oxide_stresses_are_kbar_with_the_sign_of_a_pressure() -> None:
    source, dataset = read(
        OxidePolymorphsSource, "oxide_polymorphs_4xc/supporting-information.json.xz"
    )
    assert len(dataset) == 1180
    functionals = [dataset.method(i).xc_functional for i in range(len(dataset))]
    assert {name: functionals.count(name) for name in set(functionals)} == dict.fromkeys(
        ("LDA", "PBE", "PBEsol", "AM05"), 295
    )
    (stress,) = (f for f in check_consistency(dataset).findings if f.label == "stress")
    assert stress.verdict == "consistent"
    assert stress.slope == pytest.approx(1.0, abs=0.01)
    relaxed = OxidePolymorphsSource(path=source._path, part="final")
    assert len(list(relaxed)) == 118


@pytest.mark.parametrize(("element", "n_frames"), [("Cu", 324), ("Ni", 325)])
def test_alignn_frames_have_energies_per_atom_and_62_repeated_stresses(
    element: str, n_frames: int
) -> None:
    source, dataset = read(AlignnSource, f"mlearn/{element}_alignn_id_prop.json.xz")
    assert len(dataset) == n_frames
    assert source.notes[0].startswith(f"stresses of 62 of {n_frames} frames left out")
    assert verdicts(dataset) == {
        "energy": "consistent",
        "forces": "consistent",
        "stress": "consistent",
    }


@pytest.mark.parametrize(("file", "n_rows"), [("oqmd_200", 200), ("carolina_100", 100)])
def test_fractional_coordinates_of_the_devsets_are_corrected(file: str, n_rows: int) -> None:
    source, dataset = read(MatscimlSource, f"matsciml_devsets/{file}.json.gz")
    assert source.notes[0].startswith(f"cart_coords of {n_rows} of {n_rows} entries")
    assert set(dataset.tag("positions")) == {"were fractional"}
    from scipy.spatial.distance import pdist

    shortest = min(pdist(entry.positions).min() for entry in dataset if len(entry) > 1)
    assert shortest > 0.7  # Å; as written, atoms would be a few hundredths of an Å apart


def test_the_other_devsets_are_read_whole() -> None:
    _, summary = read(MatscimlSource, "matsciml_devsets/mp_summary_200.json.gz")
    values, _ = summary.target("formation_energy")
    assert (len(summary), len(set(summary.ids))) == (200, 200)
    assert (values.min(), values.max()) == pytest.approx((-4.47, 0.69), abs=0.01)
    # raw energies of two levels of theory: those that MP shifted onto r2SCAN's scale are GGA
    functionals = [summary.method(i).xc_functional for i in range(200)]
    assert (functionals.count("PBE(+U)"), functionals.count("PBE(+U) or r2SCAN")) == (81, 119)
    _, alexandria = read(MatscimlSource, "matsciml_devsets/alexandria_98.json.gz")
    assert len(alexandria) == 98
    assert alexandria.target("forces")[1].all()
    _, lips = read(MatscimlSource, "matsciml_devsets/lips_200.extxyz.gz")
    assert (len(lips), set(lips.n_atoms)) == (200, {83})
    assert verdicts(lips)["forces"] == "consistent"


@pytest.mark.parametrize(
    ("sample", "expected"),
    [
        ("carbon", {"forces": "consistent", "stress": "consistent"}),
        ("ethanol", {"forces": "consistent"}),
    ],
)
def test_labels_of_the_metatrain_samples_agree(sample: str, expected: dict[str, str]) -> None:
    _, dataset = read(MetatrainSource, f"metatrain_small/{sample}_reduced_100.xyz.xz")
    assert len(dataset) == 100
    found = verdicts(dataset)
    assert {label: found[label] for label in expected} == expected


def test_qm9_sample_has_methane_as_published() -> None:
    _, dataset = read(MetatrainSource, "metatrain_small/qm9_reduced_100.xyz.xz")
    entry = dataset[0]
    assert sorted(entry.numbers) == [1, 1, 1, 1, 6]
    # QM9, gdb 1: U0 = -40.47893 Hartree, zpve 0.044749, gap 0.5048
    assert float(entry.targets["internal_energy_0"]) == pytest.approx(
        -40.47893 * 27.211386, rel=1e-7
    )
    assert float(entry.targets["band_gap"]) == pytest.approx(0.5048 * 27.211386, rel=1e-7)
    _, molecules = read(MetatrainSource, "metatrain_small/qm7x_reduced_100.xyz.xz")
    alpha = molecules.target("polarizability")[0][0]
    assert alpha[:3].mean() == pytest.approx(
        (85.710725 + 120.283031 + 77.732475) / 3 * 0.14818, rel=1e-4
    )
