"""Reference energies: outliers, alignment of levels of theory, formation energies."""

import numpy as np
import pytest
from ase.data import atomic_numbers

from epitaxy.composition import atoms_of_formula, composition_entry
from epitaxy.curation.alignment import find_alignment
from epitaxy.curation.operations import apply
from epitaxy.curation.outliers import find_outliers
from epitaxy.curation.plausible import doubts_about
from epitaxy.dataset import Dataset
from epitaxy.entry import Entry, Method
from epitaxy.errors import DataError, OptionError
from epitaxy.references import Compositions, fit_references

REFERENCES = {"O": -4.9, "Ti": -7.8, "Fe": -8.5, "Li": -1.9, "Xe": -0.1, "Si": -5.4}
SHIFTS = {"O": -1.1, "Ti": -3.0, "Fe": -9.0, "Li": -0.4, "Si": -0.8}


def entry(formula: str, formation: float, *, shifts=None, xc="PBE", **more) -> Entry:
    """A formula with its energy from references, shifts and formation energy (eV/atom)."""
    numbers = atoms_of_formula(formula).tolist()
    scale = {
        z: REFERENCES[s] + (shifts or {}).get(s, 0.0)
        for s in REFERENCES
        for z in [atomic_numbers[s]]
    }
    energy = sum(scale[z] for z in numbers) + formation * len(numbers)
    method = Method(code="VASP", xc_functional=xc)
    return composition_entry(formula, targets={"energy": energy}, method=method, **more)


def formulas(seed: int, n: int, elements=("O", "Ti", "Fe", "Li")) -> list[str]:
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(n):
        chosen = rng.choice(elements, size=rng.integers(1, 4), replace=False)
        made.append("".join(f"{e}{rng.integers(1, 6)}" for e in chosen))
    return made


def compounds(seed: int, n: int, **options) -> list[Entry]:
    rng = np.random.default_rng(1000 + seed)
    return [
        entry(formula, rng.normal(-0.5, 0.3), id=f"{options.get('xc', 'PBE')}-{k}", **options)
        for k, formula in enumerate(formulas(seed, n))
    ]


def test_a_fit_in_blocks_is_the_fit_at_once(monkeypatch):
    dataset = Dataset.from_entries(compounds(0, 300))
    counts = Compositions.of(dataset)
    per_atom = dataset.target("energy")[0] / dataset.n_atoms
    exact = np.linalg.lstsq(counts.fractions(), per_atom, rcond=None)[0]
    monkeypatch.setattr("epitaxy.references._BLOCK", 7)
    fit = fit_references(Compositions.of(dataset), per_atom)
    assert list(fit.energies.values()) == pytest.approx(exact, abs=1e-10)
    assert fit.residuals == pytest.approx(per_atom - counts.fractions() @ exact, abs=1e-9)
    assert fit.undetermined == ()


def test_elements_that_compositions_leave_open_are_named():
    dataset = Dataset.from_entries([entry("LiO", -1), entry("Ti", 0), entry("Ti2LiO", -0.5)])
    per_atom = dataset.target("energy")[0] / dataset.n_atoms
    assert fit_references(Compositions.of(dataset), per_atom).undetermined == (3, 8)


def test_a_robust_fit_ignores_gross_errors():
    entries = compounds(1, 200)
    bad = [entry("TiO2", 80.0), entry("FeO", -50.0), entry("LiFe", 35.0)]
    dataset = Dataset.from_entries([*entries, *bad])
    per_atom = dataset.target("energy")[0] / dataset.n_atoms
    clean = fit_references(Compositions.of(dataset[:200]), per_atom[:200], robust=True)
    dirty = fit_references(Compositions.of(dataset), per_atom, robust=True)
    assert list(dirty.energies.values()) == pytest.approx(list(clean.energies.values()), abs=0.1)


def test_gross_errors_are_dropped_and_rare_chemistry_is_not():
    entries = compounds(2, 200)
    rare = [entry("XeO3", 2.5, id="xenon oxide"), entry("Xe", 0.0, id="xenon")]
    bad = [entry("TiO2", 77.7, id="bad-1"), entry("FeO", -9.0, id="bad-2")]
    cleaned = apply(Dataset.from_entries([*entries, *rare, *bad]), "outliers", {})
    assert set(cleaned.ids) == {e.id for e in [*entries, *rare]}
    step = cleaned.history[-1]
    (fact,) = step["reasons"].values()
    assert fact["examples"][0].startswith("bad-1 (O2Ti): +78")
    assert step["spreads"]["VASP, PBE"] < 0.5


def test_levels_of_theory_are_judged_apart():
    entries = [*compounds(3, 100), *compounds(4, 100, shifts=SHIFTS, xc="r2SCAN")]
    assert len(find_outliers(Dataset.from_entries(entries)).rows) == 0


def test_two_scales_under_one_name_are_told_and_nothing_is_dropped():
    entries = [*compounds(5, 100), *compounds(6, 60, shifts={s: -40.0 for s in SHIFTS})]
    dataset = Dataset.from_entries(entries)
    step = apply(dataset, "outliers", {}).history[-1]
    assert step["counts"]["n_dropped"] == 0
    assert "two levels of theory, codes or units are mixed" in step["warnings"][0]


def test_few_entries_are_not_judged():
    bad = [entry("TiO2", 50.0), *compounds(7, 10)]
    assert len(apply(Dataset.from_entries(bad), "outliers", {})) == 11


def test_outliers_are_for_energies():
    with pytest.raises(DataError, match="forces is not an energy"):
        apply(Dataset.from_entries(compounds(8, 30)), "outliers", {"target": "forces"})
    gaps = Dataset.from_entries(compounds(8, 30))
    assert len(apply(gaps, "outliers", {"target": "formation_energy"})) == 30


def two_levels(*, n_shared: int) -> Dataset:
    """Some compounds at both levels with the same energies of formation, and others."""
    rng = np.random.default_rng(9)
    both = formulas(9, n_shared)
    heats = rng.normal(-0.8, 0.5, n_shared)
    first = [entry(f, h, id=f"a{k}") for k, (f, h) in enumerate(zip(both, heats, strict=True))]
    second = [
        entry(f, h, shifts=SHIFTS, xc="r2SCAN", id=f"b{k}")
        for k, (f, h) in enumerate(zip(both, heats, strict=True))
    ]
    return Dataset.from_entries(
        [*first, *second, *compounds(10, 300), *compounds(11, 60, shifts=SHIFTS, xc="r2SCAN")]
    )


def test_levels_of_theory_are_aligned_by_what_they_share():
    found = find_alignment(two_levels(n_shared=40))
    assert found.onto == "VASP, PBE"
    shifts = found.shifts["VASP, r2SCAN"]
    for symbol in ("O", "Ti", "Fe", "Li"):
        assert shifts[symbol] == pytest.approx(SHIFTS[symbol], abs=0.05)
    assert found.undetermined["VASP, r2SCAN"] == ()
    assert found.n_shared["VASP, r2SCAN"] >= 25
    assert found.after["VASP, r2SCAN"] < 0.05 < 1 < found.before["VASP, r2SCAN"]


def test_without_shared_compounds_the_energies_alone_align():
    entries = [
        *compounds(12, 400),
        *[e for e in compounds(13, 400, shifts=SHIFTS, xc="r2SCAN")],
    ]
    known = {e.tags["composition"] for e in entries[:400]}
    kept = entries[:400] + [e for e in entries[400:] if e.tags["composition"] not in known]
    found = find_alignment(Dataset.from_entries(kept))
    shifts = found.shifts["VASP, r2SCAN"]
    assert found.spread == pytest.approx(0.3, abs=0.05)
    for symbol in ("O", "Ti", "Fe", "Li"):
        assert shifts[symbol] == pytest.approx(SHIFTS[symbol], abs=0.3)


def test_aligning_changes_one_level_only_and_can_be_repeated():
    dataset = two_levels(n_shared=40)
    aligned = apply(dataset, "align", {"onto": "PBE"})
    values, after = dataset.target("energy")[0], aligned.target("energy")[0]
    is_pbe = np.array([dataset.method(i).xc_functional == "PBE" for i in range(len(dataset))])
    assert (values == after)[is_pbe].all()
    pairs = (after[40:80] - after[:40]) / dataset.n_atoms[:40]
    assert np.abs(pairs).max() < 0.1
    step = aligned.history[-1]
    assert step["options"] == {"by": "method", "onto": "VASP, PBE"}
    assert step["counts"] == {"n_seen": 440, "n_changed": 100}
    assert "differ by" in step["said"][0]
    assert apply(dataset, "align", step["options"]).digest == aligned.digest
    back = apply(dataset, "align", {"onto": "r2SCAN"}).target("energy")[0]
    assert (back == values)[~is_pbe].all()


def test_shifts_that_rest_on_too_few_shared_compounds_are_doubted():
    assert find_alignment(two_levels(n_shared=40)).warnings() == []
    apart = [
        *compounds(15, 50),
        *[entry(f, -0.5, shifts=SHIFTS, xc="LDA") for f in ("Fe7Ti9", "Li9O7", "Ti9O8", "Fe9O7")],
    ]
    (warning,) = find_alignment(Dataset.from_entries(apart)).warnings()
    assert "VASP, LDA: 0 compositions shared for 4 elements" in warning
    assert "add compounds that both have" in warning


def test_elements_of_one_source_alone_are_named_as_undetermined():
    more = entry("SiO2", -2.0, shifts=SHIFTS, xc="r2SCAN")
    found = find_alignment(Dataset.from_entries([*two_levels(n_shared=40), more]))
    assert found.undetermined["VASP, r2SCAN"] == ("Si",)
    assert "not determined by the data: Si" in found.lines()[0]


def test_sources_may_be_told_apart_by_a_tag():
    dataset = two_levels(n_shared=20)
    words = ["A" if dataset.method(i).xc_functional == "PBE" else "B" for i in range(len(dataset))]
    found = find_alignment(dataset.with_tag("source", words), by="source", onto="B")
    assert found.shifts["A"]["Fe"] == pytest.approx(-SHIFTS["Fe"], abs=0.2)


@pytest.mark.parametrize(
    ("onto", "message"),
    [("SCAN", "'SCAN' is none of the methods"), ("VASP", "'VASP' is more than one of the methods")],
)
def test_a_scale_that_is_not_there_is_named(onto, message):
    with pytest.raises(DataError, match=message):
        find_alignment(two_levels(n_shared=5), onto=onto)
    with pytest.raises(DataError, match="nothing to align"):
        find_alignment(Dataset.from_entries(compounds(1, 5)))


def test_formation_energies_come_from_elemental_entries_of_the_same_level():
    entries = [
        entry("Ti", 0.0),
        entry("Ti", 0.3),
        entry("O", 0.0),
        entry("TiO2", -3.2),
        entry("Ti", 0.0, shifts=SHIFTS, xc="r2SCAN"),
        entry("O", 0.0, shifts=SHIFTS, xc="r2SCAN"),
        entry("TiO2", -3.4, shifts=SHIFTS, xc="r2SCAN"),
        entry("Li2O", -2.0),
    ]
    found = apply(Dataset.from_entries(entries), "formation_energy", {})
    values, mask = found.target("formation_energy")
    assert values[:7] == pytest.approx([0, 0.3, 0, -3.2, 0, 0, -3.4])
    assert mask.tolist() == [True] * 7 + [False]
    step = found.history[-1]
    assert step["said"] == [
        "1 of 8 without: an element has no reference",
        "VASP, PBE: no reference energy for Li",
    ]


def test_formation_energies_come_from_given_references():
    dataset = Dataset.from_entries([entry("TiO2", -3.2), entry("Fe2O3", -1.6)])
    given = {"Ti": -7.8, "O": -4.9, "Fe": -8.5}
    found = apply(dataset, "formation_energy", {"references": given})
    assert found.target("formation_energy")[0] == pytest.approx([-3.2, -1.6])
    with pytest.raises(DataError, match="set overwrite: true"):
        apply(found, "formation_energy", {"references": given})
    with pytest.raises(OptionError, match="Tx: not the symbol"):
        apply(dataset, "formation_energy", {"references": {"Tx": -1.0}})
    with pytest.raises(DataError, match="no reference energy for Fe, O, Ti"):
        apply(dataset, "formation_energy", {})


def test_formation_energies_of_whole_cells_are_doubted():
    rng = np.random.default_rng(0)
    names = [f for f in formulas(14, 400) if len(atoms_of_formula(f)) > 3][:200]
    heats = rng.normal(-0.9, 0.5, 200)

    def table(factor):
        return Dataset.from_entries(
            composition_entry(f, targets={"formation_energy": h * factor(f)}, id=str(k))
            for k, (f, h) in enumerate(zip(names, heats, strict=True))
        )

    assert doubts_about(table(lambda f: 1)) == ()
    (said,) = doubts_about(table(lambda f: len(atoms_of_formula(f))))
    assert "are these per formula unit or cell" in said


def test_levels_that_were_aligned_share_the_energies_of_the_elements():
    several = [k for k, one in enumerate(compounds(7, 80)) if len(set(one.numbers)) > 1]
    plain = [compounds(7, 80)[k] for k in several]
    with_u = [compounds(7, 80, shifts=SHIFTS, xc="PBE+U")[k] for k in several]
    n = len(several)
    metals = [entry(symbol, 0.0, id=symbol) for symbol in ("O", "Ti", "Fe", "Li")]
    dataset = Dataset.from_entries([*metals, *with_u, *plain])
    apart = apply(dataset, "formation_energy", {})
    assert apart.target("formation_energy")[1].sum() == len(dataset) - n
    aligned = apply(dataset, "align", {"onto": "PBE"})
    found = apply(aligned, "formation_energy", {})
    values, mask = found.target("formation_energy")
    assert mask.all()
    assert values[4 : 4 + n] == pytest.approx(values[4 + n :], abs=1e-3)
    assert "aligned: VASP, PBE; VASP, PBE+U" in found.history[-1]["said"][0]
    longer = aligned.with_history({"operation": "append"})  # entries that nobody has aligned
    assert apply(longer, "formation_energy", {}).target("formation_energy")[1].sum() < len(dataset)
