import itertools
import json

import numpy as np
import pytest
from ase.spacegroup import crystal

from epitaxy.cli import main
from epitaxy.composition import composition_entry
from epitaxy.curation.compare import compare
from epitaxy.curation.groups import add_groups
from epitaxy.curation.offsets import hodges_lehmann, paired_statistics
from epitaxy.dataset import Dataset
from epitaxy.entry import Entry, Method
from epitaxy.errors import DataError

METALS = ("Li", "Na", "K", "Rb", "Mg", "Ca", "Sr", "Ba", "Zn", "Cd")
ANIONS = ("F", "Cl", "Br", "I", "O", "S")
FORMULAS = [f"{m}{a}" for m, a in itertools.product(METALS, ANIONS)]


def table(values: dict[str, float], *, xc: str = "PBE", quantity: str = "band_gap") -> Dataset:
    return Dataset.from_entries(
        composition_entry(
            formula,
            targets={quantity: value},
            id=f"{xc}-{formula}",
            method=Method(xc_functional=xc),
        )
        for formula, value in values.items()
    )


def shifted(offset: float = 0.3, *, noise: float = 0.05) -> tuple[Dataset, Dataset]:
    """Return gaps of 60 formulas, and of the last 40 of them by a method that gives more."""
    rng = np.random.default_rng(3)
    first = {formula: 1.0 + 4.0 * rng.random() for formula in FORMULAS}
    second = {f: first[f] + offset + noise * rng.normal() for f in FORMULAS[20:]}
    return table(first), table({**second, "CuO": 1.0}, xc="HSE")


def test_groups_are_shared_as_counted_by_hand():
    first, second = shifted()
    found = compare(first, second, target="band_gap", group="composition")
    assert (found.first.n_groups, found.second.n_groups, found.n_shared) == (60, 41, 40)
    assert found.share_of_first == 40 / 60
    assert found.share_of_second == 40 / 41
    assert found.jaccard == 40 / 61
    assert (found.first.n_shared, found.second.n_shared) == (40, 40)


def test_a_known_offset_lies_in_every_interval_and_has_the_sign_of_second_minus_first():
    first, second = shifted(0.3)
    paired = compare(first, second, target="band_gap", group="composition").paired
    assert paired is not None
    for estimate in (paired.mean, paired.mean_bootstrap, paired.median, paired.hodges_lehmann):
        assert estimate.low < 0.3 < estimate.high
        assert estimate.high - estimate.low < 0.1
    assert paired.slope == pytest.approx(1.0, abs=0.03)
    assert paired.pearson == pytest.approx(1.0, abs=0.01)
    back = compare(second, first, target="band_gap", group="composition").paired
    assert back is not None
    assert back.mean.value == pytest.approx(-paired.mean.value)


def test_intervals_cover_the_truth_as_often_as_they_say():
    rng = np.random.default_rng(0)
    hits = np.zeros(4)
    for seed in range(200):
        a = rng.normal(size=30)
        paired = paired_statistics(a, a + 0.5 + rng.normal(size=30), n_resamples=200, seed=seed)
        found = (paired.mean, paired.mean_bootstrap, paired.median, paired.hodges_lehmann)
        hits += [estimate.low <= 0.5 <= estimate.high for estimate in found]
    assert (hits >= 0.89 * 200).all()  # 95 % give 190 of 200, with a deviation of 3


@pytest.mark.parametrize("n", [2, 5, 24, 41])
def test_hodges_lehmann_is_the_median_of_all_pairwise_means(n):
    rng = np.random.default_rng(n)
    d = np.round(rng.normal(size=n), 1)  # with ties
    means = sorted(0.5 * (d[i] + d[j]) for i in range(n) for j in range(i, n))
    found = hodges_lehmann(d)
    assert means[(len(means) - 1) // 2] - 1e-9 <= found.value <= means[len(means) // 2] + 1e-9
    assert found.low <= found.value <= found.high


def test_hodges_lehmann_resists_outliers_where_the_mean_does_not():
    d = np.r_[np.linspace(-0.1, 0.1, 95), np.full(5, 50.0)]
    assert abs(hodges_lehmann(d).value) < 0.02
    assert d.mean() > 2.0


def test_many_equal_differences_give_exactly_zero():
    found = hodges_lehmann(np.r_[np.zeros(1000), [-3.0, 1e-3, 2.0]])
    assert (found.value, found.low, found.high) == (0.0, 0.0, 0.0)


def test_a_group_with_several_values_counts_once_with_their_median():
    several = [("TiO2", 1.0), ("Ti2O4", 3.0), ("O2Ti", 8.0), ("NaCl", 5.0), ("KCl", 4.0)]
    first = Dataset.from_entries(
        composition_entry(formula, targets={"band_gap": gap}, id=f"a{k}")
        for k, (formula, gap) in enumerate(several)
    )
    second = table({"TiO2": 3.5, "NaCl": 5.0, "KCl": 4.0})
    found = compare(first, second, target="band_gap", group="composition")
    worst = found.disagreements[0]
    assert (worst.group, worst.first, worst.second) == ("O2Ti", 3.0, 3.5)
    assert (worst.first_id, worst.n_first, worst.n_second) == ("a1", 3, 1)
    assert found.first.inside_groups == 7.0
    lowest = compare(first, second, target="band_gap", group="composition", value="lowest")
    assert lowest.disagreements[0].first == 1.0
    assert lowest.disagreements[0].first_id == "a0"


def test_the_element_that_drives_the_offset_comes_first():
    rng = np.random.default_rng(5)
    first = {formula: 3.0 for formula in FORMULAS}
    second = {f: 3.0 + 0.02 * rng.normal() + (0.8 if f.endswith("O") else 0.0) for f in FORMULAS}
    found = compare(table(first), table(second), target="band_gap", group="composition")
    best = found.elements[0]
    assert (best.symbol, best.n) == ("O", 10)
    assert best.contrast is not None
    assert best.contrast.low < 0.8 < best.contrast.high
    assert best.mean.low < 0.8 < best.mean.high


def test_metals_and_gaps_are_told_apart():
    first = table({"LiF": 0.0, "NaF": 0.0, "KF": 1.0, "LiCl": 1.0, "NaCl": 2.0, "KCl": 3.0})
    second = table({"LiF": 0.0, "NaF": 0.5, "KF": 0.0, "LiCl": 2.0, "NaCl": 3.0, "KCl": 4.0})
    found = compare(first, second, target="band_gap", group="composition")
    assert found.metals == {
        "both_metal": 1,
        "only_first_metal": 1,
        "only_second_metal": 1,
        "both_gapped": 3,
    }
    assert found.gapped is not None
    assert found.gapped.mean.value == 1.0


def test_different_levels_of_theory_are_named():
    first, second = shifted()
    warnings = compare(first, second, target="band_gap", group="composition").warnings
    assert any("levels of theory differ" in w and "PBE (60)" in w and "HSE" in w for w in warnings)
    same = compare(first, first, target="band_gap", group="composition").warnings
    assert same == ("first and second hold the same data",)


def rutile_and_salt(energy: float, *, copies: int = 1) -> list[Entry]:
    rutile = crystal(
        ["Ti", "O"],
        [(0, 0, 0), (0.305, 0.305, 0)],
        spacegroup=136,
        cellpar=[4.6, 4.6, 2.95] + [90] * 3,
    )
    anatase = crystal(
        ["Ti", "O"],
        [(0, 0, 0), (0, 0, 0.208)],
        spacegroup=141,
        cellpar=[3.78, 3.78, 9.5] + [90] * 3,
    )
    salt = crystal(
        ["Na", "Cl"], [(0, 0, 0), (0.5,) * 3], spacegroup=225, cellpar=[5.64] * 3 + [90] * 3
    )
    magnesia = crystal(
        ["Mg", "O"], [(0, 0, 0), (0.5,) * 3], spacegroup=225, cellpar=[4.2] * 3 + [90] * 3
    )
    return [
        Entry.from_atoms(
            atoms * (copies, 1, 1), targets={"energy": energy * len(atoms) * copies}, id=name
        )
        for name, atoms in {"r": rutile, "a": anatase, "s": salt, "m": magnesia}.items()
    ]


def test_polymorphs_are_apart_and_supercells_together_and_energies_are_per_atom():
    first = Dataset.from_entries(rutile_and_salt(-8.0))
    second = Dataset.from_entries([e for e in rutile_and_salt(-8.5, copies=2) if e.id != "a"])
    found = compare(first, second, target="energy")
    assert found.unit == "eV/atom"
    assert (found.first.n_groups, found.n_shared) == (4, 3)
    assert found.options["group"] == "spacegroup@moyopy-0.1"
    assert found.paired is not None
    assert found.paired.mean.value == pytest.approx(-0.5)
    assert {worst.group for worst in found.disagreements} == {"O2Ti_136", "NaCl_225", "OMg_225"}
    by_prototype = compare(first, second, target="energy", group="prototype")
    assert by_prototype.n_shared == 3  # of the same elements: salt and magnesia are not one


def test_groups_of_different_engines_or_tolerances_are_refused():
    entries = Dataset.from_entries(rutile_and_salt(-8.0))
    first, second = add_groups(entries, symprec=0.1), add_groups(entries, symprec=0.01)
    with pytest.raises(DataError, match="different engines or tolerances"):
        compare(first, second, target="energy")
    assert compare(first, second, target="energy", engine="moyopy").n_shared == 4


def test_formulas_have_no_spacegroup():
    first, second = shifted()
    with pytest.raises(DataError, match="--group composition"):
        compare(first, second, target="band_gap")


def test_a_target_that_is_missing_or_no_number_is_refused():
    first, second = shifted()
    with pytest.raises(DataError, match="first has no energy; it has: band_gap"):
        compare(first, second, target="energy", group="composition")
    with pytest.raises(DataError, match="not one number per structure"):
        compare(first, second, target="forces", group="composition")


def test_nothing_shared_gives_counts_and_no_offset():
    found = compare(
        table({"NaCl": 5.0}), table({"KCl": 4.0}), target="band_gap", group="composition"
    )
    assert (found.n_shared, found.jaccard, found.paired, found.disagreements) == (0, 0.0, None, ())
    assert any("only 0 shared groups" in warning for warning in found.warnings)


def test_the_command_writes_a_page_that_needs_nothing_else_and_a_json(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    first, second = shifted()
    first.save(tmp_path / "mp")
    second.save(tmp_path / "<b>oqmd")
    paths = [str(tmp_path / "mp"), str(tmp_path / "<b>oqmd")]
    command = ["compare", *paths, "--target", "band_gap", "--group", "composition"]
    command += ["-o", str(tmp_path / "out"), "--resamples", "100"]
    assert main(command) == 0
    said = capsys.readouterr().out
    assert "shared groups: 40 = 66.7% of mp, 97.6% of <b>oqmd, Jaccard 65.6%" in said
    page = (tmp_path / "out" / "comparison.html").read_text()
    assert page.count("<svg") == 4
    assert "&lt;b&gt;oqmd" in page
    assert "<b>oqmd" not in page
    assert "http" not in page.replace("http://www.w3.org", "")  # the names of SVG
    facts = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert facts["format"] == "epitaxy-comparison"
    assert facts["first"]["digest"] == first.digest
    assert facts["options"]["group"] == "composition"
    assert facts["difference"] == "second - first"
    assert facts["paired"]["n"] == 40
    assert main(command) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert main([*command, "--overwrite"]) == 0


def test_the_same_comparison_gives_the_same_page_and_numbers(tmp_path):
    pytest.importorskip("matplotlib")
    from epitaxy.curation.comparison_page import write_comparison

    pages = []
    for name in ("one", "two"):
        found = compare(*shifted(), target="band_gap", group="composition", seed=7)
        paths = write_comparison(found, tmp_path / name)
        pages.append([path.read_text() for path in paths])
    assert pages[0] == pages[1]
