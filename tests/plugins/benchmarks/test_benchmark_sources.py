import json
import lzma
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from epitaxy.curation.consistency import check_consistency
from epitaxy.dataset import Dataset
from epitaxy.errors import DataError
from epitaxy.registry import Registry
from epitaxy_benchmarks.mlearn import MlearnSource
from epitaxy_benchmarks.silicon import SiliconSource

MLEARN = Path(__file__).parents[4] / "shared" / "data" / "mlearn"
needs_mlearn = pytest.mark.skipif(not MLEARN.exists(), reason="needs ../shared/data/mlearn")


def verdicts(dataset: Dataset) -> dict[str, str]:
    return {finding.label: finding.verdict for finding in check_consistency(dataset).findings}


def test_silicon_is_whole_and_says_where_it_comes_from():
    source = SiliconSource(xc="PBE")
    dataset = Dataset.from_entries(source)
    assert len(dataset) == source.provenance["functionals"]["PBE"]["n_frames"]
    assert set(dataset.targets) == {"energy", "forces", "stress"}
    assert all(dataset.target(name)[1].all() for name in dataset.targets)
    assert len(set(dataset.ids)) == len(dataset)
    assert dataset.elements == {14}
    assert dataset.methods[0].xc_functional == "PBE"
    assert source.card.license == "CC-BY-4.0"
    assert {"eos", "rattled", "strained"} <= set(dataset.tag("kind"))


def test_silicon_labels_agree_with_each_other():
    found = verdicts(Dataset.from_entries(SiliconSource(xc="PBE")))
    assert found["forces"] == found["stress"] == "consistent"


def test_silicon_is_selected_by_kind():
    dataset = Dataset.from_entries(SiliconSource(kind=["eos", "strained"]))
    assert set(dataset.tag("kind")) == {"eos", "strained"}
    with pytest.raises(DataError, match="kind = 'liquid' is not one of"):
        SiliconSource(kind=["liquid"])


@needs_mlearn
@pytest.mark.parametrize("element", ["Si", "Ge", "Li"])
def test_mlearn_labels_agree_with_each_other(element):
    dataset = Dataset.from_entries(MlearnSource(path=MLEARN / f"{element}_training.json.xz"))
    assert len(dataset) == {"Si": 214, "Ge": 228, "Li": 241}[element]
    assert verdicts(dataset) == {
        "energy": "consistent",
        "forces": "consistent",
        "stress": "consistent",
    }
    assert {"Elastic", "Surface", "Vacancy", "AIMD-NVT"} == set(dataset.tag("group"))


@needs_mlearn
@pytest.mark.parametrize("element", ["Cu", "Ni"])
def test_mlearn_copper_and_nickel_have_another_order_of_stress(element):
    path = MLEARN / f"{element}_test.json.xz"
    right = check_consistency(Dataset.from_entries(MlearnSource(path=path)))
    assert not right.inconsistent
    wrong = check_consistency(Dataset.from_entries(MlearnSource(path=path, stress_order="vasp")))
    assert [finding.label for finding in wrong.inconsistent] == ["stress"]
    assert "order" in wrong.message()


@needs_mlearn
def test_an_unconverted_mlearn_stress_would_be_noticed():
    entries = list(MlearnSource(path=MLEARN / "Si_training.json.xz"))
    raw = [
        np.array(frame["outputs"]["virial_stress"])
        for frame in json.loads(lzma.decompress((MLEARN / "Si_training.json.xz").read_bytes()))
    ]
    unconverted = Dataset.from_entries(
        replace(entry, targets={**entry.targets, "stress": stress})
        for entry, stress in zip(entries, raw, strict=True)
    )
    flags = check_consistency(unconverted).remedy.flags()
    assert flags == "--stress-unit kbar --stress-order vasp --stress-is-pressure"


@needs_mlearn
def test_mlearn_groups_can_be_selected():
    source = MlearnSource(path=MLEARN / "Si_test.json.xz", group="Elastic")
    assert [entry.tags["group"] for entry in source] == ["Elastic"] * 6
    assert [entry.id for entry in source] == [entry.id for entry in source]


@needs_mlearn
def test_mlearn_files_are_recognised():
    registry = Registry.from_entry_points()
    for path in sorted(MLEARN.glob("*_t*.json.xz")):
        assert registry.identify(path) == "mlearn", path.name


def test_damaged_mlearn_files_are_named(tmp_path):
    file = tmp_path / "Si.json"
    frame = {"structure": {"sites": []}, "outputs": {}}
    for text, message in (
        ('[{"structure": ', "damaged, cut or not JSON"),
        ('{"structure": 1}', "not a list of frames"),
        (json.dumps([frame]), "frame 0 is not as in mlearn's files: KeyError"),
    ):
        file.write_text(text)
        with pytest.raises(DataError, match=message):
            list(MlearnSource(path=file))
    with pytest.raises(DataError, match="no such file"):
        MlearnSource(path=tmp_path / "nothing.json")


def test_the_stress_of_the_packaged_example_is_converted():
    # The example was made with ASE's EMT potential, written in mlearn's conventions for copper.
    from importlib.resources import files

    from ase.calculators.emt import EMT

    path = Path(str(files("epitaxy_benchmarks") / "examples" / "Cu_training.json"))
    for entry in MlearnSource(path=path):
        atoms = entry.to_atoms()
        atoms.calc = EMT()
        assert entry.targets["energy"] == pytest.approx(atoms.get_potential_energy(), abs=1e-5)
        assert entry.targets["forces"] == pytest.approx(atoms.get_forces(), abs=1e-5)
        assert entry.targets["stress"] == pytest.approx(atoms.get_stress(), abs=1e-7)
