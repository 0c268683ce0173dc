"""Element fractions and statistics of element properties, against matminer and by hand."""

import sys
import types
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk

from epitaxy.composition import composition_entry, parse_formula
from epitaxy.dataset import Dataset
from epitaxy.entry import Entry
from epitaxy_tabular.elements import PROPERTIES, element_table
from epitaxy_tabular.featurizers import STATISTICS, ElementFractions, ElementStatistics

FORMULAS = ("Fe2O3", "Ca(OH)2", "NaCl", "Fe0.620C0.000953Mn0.000521Si0.00102", "C", "LaNi5")


def formulas(*texts: str) -> Dataset:
    return Dataset.from_entries(
        [composition_entry(text, targets={}, id=f"{k}") for k, text in enumerate(texts)]
    )


def test_fractions_are_those_of_the_formula_with_all_its_digits() -> None:
    table = ElementFractions().matrix(formulas("Fe2O3", "Ca(OH)2", "Fe0.9999C0.0001"))
    assert table.shape == (3, 118)
    assert np.allclose(table.sum(axis=1), 1.0)
    assert table[0, [25, 7]] == pytest.approx([0.4, 0.6])
    assert table[1, [19, 7, 0]] == pytest.approx([0.2, 0.4, 0.4])
    assert table[2, 5] == pytest.approx(1e-4)


def test_a_structure_counts_by_its_atoms_beside_formulas_in_one_dataset() -> None:
    salt = bulk("NaCl", "rocksalt", a=5.6) * (2, 1, 1)
    mixed = Dataset.from_entries(
        [composition_entry("NaCl", targets={}, id="a"), Entry.from_atoms(salt, id="b")]
    )
    for featurizer in (ElementFractions(), ElementStatistics()):
        first, second = featurizer.matrix(mixed)
        assert np.array_equal(first, second)


def test_statistics_are_those_of_the_definition() -> None:
    features = ElementStatistics()
    row = dict(zip(features.names, features.matrix(formulas("Fe2O3"))[0], strict=True))
    assert row["minimum of number"] == 8
    assert row["maximum of number"] == 26
    assert row["range of number"] == 18
    assert row["mean of number"] == pytest.approx(0.4 * 26 + 0.6 * 8)
    assert row["deviation of number"] == pytest.approx(0.4 * (26 - 15.2) + 0.6 * (15.2 - 8))
    assert row["mode of number"] == 8
    assert row["number of elements"] == 2
    assert row["2-norm of fractions"] == pytest.approx(np.hypot(0.4, 0.6))


def test_the_mode_of_equal_shares_is_the_smallest_value() -> None:
    features = ElementStatistics()
    row = dict(zip(features.names, features.matrix(formulas("NaCl"))[0], strict=True))
    assert row["mode of number"] == 11
    assert row["mode of melting_point"] == row["minimum of melting_point"]


def test_every_element_has_every_property() -> None:
    table = element_table()
    assert table.shape == (118, len(PROPERTIES))
    assert np.isfinite(table).all()
    iron = dict(zip(PROPERTIES, table[25], strict=True))
    assert (iron["group"], iron["row"], iron["n_d"], iron["n_d_unfilled"]) == (8, 4, 6, 4)
    assert iron["electronegativity"] == pytest.approx(1.83)
    assert iron["ionization_energy"] == pytest.approx(7.9024, abs=1e-3)


def test_one_entry_has_the_features_of_the_table() -> None:
    data = formulas(*FORMULAS)
    for featurizer, key in ((ElementFractions(), "fractions"), (ElementStatistics(), "statistics")):
        featurizer.fit(data)
        table = featurizer.matrix(data)
        assert len(featurizer.names) == table.shape[1]
        for row, entry in zip(table, data, strict=True):
            assert np.array_equal(featurizer(entry)[key], row)


def test_no_entries_give_an_empty_table() -> None:
    none = formulas("C")[slice(0, 0)]
    for featurizer in (ElementFractions(), ElementStatistics()):
        assert featurizer.matrix(none).shape == (0, len(featurizer.names))


# matminer 0.8 cannot compute features beside a current pymatgen (it imports names that are gone),
# but its definitions of the statistics and its tables of the elements can be read.
needs_matminer = pytest.mark.skipif(find_spec("matminer") is None, reason="needs matminer")
STATISTICS_OF_MATMINER = ("minimum", "maximum", "range", "mean", "avg_dev", "mode")
MAGPIE = {
    # ours -> Magpie's table, where both have the same definition and unit
    "number": "Number",
    "atomic_weight": "AtomicWeight",
    "group": "Column",
    "row": "Row",
    "melting_point": "MeltingT",
    "electronegativity": "Electronegativity",
    "molar_volume": "MolarVolume",
    "ionization_energy": "FirstIonizationEnergy",
    "bulk_modulus": "BulkModulus",
}


@needs_matminer
def test_the_statistics_are_those_of_matminer(monkeypatch: pytest.MonkeyPatch) -> None:
    if find_spec("pkg_resources") is None:  # matminer 0.8 asks it for its own version alone
        stand_in = types.ModuleType("pkg_resources")
        stand_in.DistributionNotFound = LookupError  # type: ignore[attr-defined]
        stand_in.get_distribution = lambda name: types.SimpleNamespace(  # type: ignore[attr-defined]
            version=version(name)
        )
        monkeypatch.setitem(sys.modules, "pkg_resources", stand_in)
    stats = pytest.importorskip("matminer.featurizers.utils.stats").PropertyStats
    ours = ElementStatistics()
    column = {name: k for k, name in enumerate(ours.names)}
    for row, formula in zip(ours.matrix(formulas(*FORMULAS)), FORMULAS, strict=True):
        amounts = parse_formula(formula)
        values = element_table()[np.array(list(amounts)) - 1]
        for k, name in enumerate(PROPERTIES):
            for kind, theirs in zip(STATISTICS, STATISTICS_OF_MATMINER, strict=True):
                expected = stats.calc_stat(values[:, k], theirs, list(amounts.values()))
                assert row[column[f"{kind} of {name}"]] == pytest.approx(expected), (formula, kind)


@needs_matminer
def test_properties_agree_with_the_magpie_tables() -> None:
    folder = Path(find_spec("matminer").origin).parent / "utils/data_files/magpie_elementdata"  # type: ignore[union-attr,arg-type]
    for name, magpie in MAGPIE.items():
        texts = (folder / f"{magpie}.table").read_text().split("\n")
        theirs = np.array([float(t) if _is_number(t) else np.nan for t in texts[:96]])
        ours = element_table()[: len(theirs), PROPERTIES.index(name)]
        both = np.isfinite(theirs)
        agree = np.isclose(ours[both], theirs[both], rtol=0.01)
        assert agree.mean() > 0.94, (name, agree.mean())


def _is_number(text: str) -> bool:
    try:
        return np.isfinite(float(text))
    except ValueError:
        return False
