"""Documents of the Materials Project in local files: real ones where they are, and damaged ones."""

import bz2
import gzip
import json
import lzma
from pathlib import Path

import numpy as np
import pytest
from mp_server import summaries, thermos

from epitaxy import Registry
from epitaxy.cli import main
from epitaxy.composition import has_structure
from epitaxy.dataset import Dataset
from epitaxy.errors import DataError
from epitaxy_mp.entries import read_document
from epitaxy_mp.levels import functional
from epitaxy_mp.source import MaterialsProjectSource

SHARED = Path(__file__).resolve().parents[4] / "shared" / "data"
RECORDED = SHARED / "recorded_responses" / "mp"
needs_recorded = pytest.mark.skipif(not RECORDED.is_dir(), reason=f"{RECORDED} is not there")
needs_summaries = pytest.mark.skipif(
    not (SHARED / "matsciml_devsets").is_dir(), reason="matsciml_devsets are not there"
)


def read(path: Path, **options) -> list:
    return list(MaterialsProjectSource(path=path, **options))


@needs_recorded
def test_a_real_calculation_keeps_energy_forces_stress_and_level():
    (entry,) = read(RECORDED / "mp-149_tasks.json.xz")
    assert entry.id == "mp-149"
    assert entry.targets["energy"] == -10.85073298  # the free energy of the last step
    assert entry.targets["stress"][0] == pytest.approx(0.16249854 / 1602.1766208, rel=1e-6)
    assert (entry.method.code, entry.method.xc_functional) == ("VASP 5.2.2", "PBE")
    np.testing.assert_allclose(abs(np.linalg.det(entry.cell)), 40.8882918885, rtol=1e-9)


@needs_recorded
def test_the_stress_of_real_volumes_is_the_slope_of_their_energy():
    """Trapezoid rule over the volumes that a relaxation of silicon went through."""
    with lzma.open(RECORDED / "mp-149_tasks.json.xz", "rt") as stream:
        task = json.load(stream)
    points = []
    for step in task["calcs_reversed"][1]["output"]["ionic_steps"]:
        document = {"task_id": "mp-1", "output": {**step, "energy": step["e_fr_energy"]}}
        entry = read_document(document)
        points.append(
            (
                abs(np.linalg.det(entry.cell)),
                float(entry.targets["energy"]),
                entry.targets["stress"][:3].mean(),
            )
        )
    (v1, e1, s1), (v2, e2, s2) = points[0], points[1]
    assert (e2 - e1) / (v2 - v1) == pytest.approx((s1 + s2) / 2, rel=0.2, abs=2e-4)
    assert s1 < 0 < s2  # compressed, then stretched


@needs_recorded
def test_plus_u_and_other_functionals_are_told_apart():
    (cobalt,) = read(RECORDED / "old_aflow_ggau_task.json.gz")
    assert cobalt.method.xc_functional == "PBE+U"
    assert "U(Co)=3.32 eV" in cobalt.method.settings
    (chromium,) = read(RECORDED / "task_doc_mp-2766060.json.gz")
    assert (chromium.method.code, chromium.method.xc_functional) == ("VASP 6.1.1", "PBEsol")
    assert chromium.targets["magmoms"].shape == (8,)


@needs_recorded
def test_a_real_hull_has_both_levels_of_theory():
    entries = read(RECORDED / "Li-Fe-O.json.gz")
    levels = [entry.method.xc_functional for entry in entries]
    assert (levels.count("PBE+U"), levels.count("PBE")) == (311, 64)
    assert len({entry.id for entry in entries}) == 375
    assert entries[0].targets["energy"] == -19.6395493
    assert Registry.from_entry_points().identify(RECORDED / "Li-Fe-O.json.gz") == "mp"


@needs_recorded
def test_corrections_are_added_only_if_asked_for():
    path = RECORDED / "Li-Fe-O.json.gz"
    plain, corrected = read(path), read(path, energy="corrected")
    difference = [
        float(b.targets["energy"] - a.targets["energy"])
        for a, b in zip(plain, corrected, strict=True)
    ]
    with gzip.open(path, "rt") as stream:
        expected = [document["correction"] for document in json.load(stream)]
    np.testing.assert_allclose(difference, expected, atol=1e-9)
    assert min(difference) < -1
    assert all("corrected energy" in e.method.settings for e in corrected)


@needs_recorded
def test_legacy_thermo_and_elasticity_documents_are_read():
    (thermo,) = read(RECORDED / "mp-149_thermo.json")
    assert thermo.targets["energy"] == pytest.approx(2 * -5.42531402)
    assert thermo.targets["energy_above_hull"] == 0
    assert len(thermo) == 2
    (elasticity,) = read(RECORDED / "mp-149_elasticity.json")
    assert elasticity.targets["bulk_modulus"] == pytest.approx(83.0112836733574)
    assert not has_structure(elasticity)


@needs_summaries
def test_summaries_without_an_id_get_one_that_stays_the_same(tmp_path):
    path = SHARED / "matsciml_devsets" / "mp_summary_200.json.gz"
    first, second = read(path), read(path)
    assert [e.id for e in first] == [e.id for e in second]
    assert len({e.id for e in first}) == 200
    with gzip.open(path, "rt") as stream:
        documents = json.load(stream)
    (tmp_path / "turned.jsonl").write_text("\n".join(map(json.dumps, reversed(documents))))
    assert [e.id for e in read(tmp_path / "turned.jsonl")] == [e.id for e in first][::-1]


@needs_summaries
def test_energies_on_two_scales_in_one_dump_are_named():
    """PBE puts actinium at -4.1 eV/atom, r2SCAN at -68.6: a summary has some of both."""
    source = MaterialsProjectSource(path=SHARED / "matsciml_devsets" / "mp_summary_200.json.gz")
    energies = [float(e.targets["energy"]) / len(e) for e in source if set(e.numbers) == {89}]
    assert max(energies) > -5
    assert min(energies) < -68
    (note,) = source.notes
    assert note.startswith("81 documents have energies of PBE shifted to r2SCAN")


@pytest.mark.parametrize(
    ("ending", "opener"),
    [("", open), (".gz", gzip.open), (".xz", lzma.open), (".bz2", bz2.open)],
    ids=["plain", "gz", "xz", "bz2"],
)
@pytest.mark.parametrize("layout", ["list", "lines", "answer", "single"])
def test_every_layout_and_compression_is_read_alike(tmp_path, ending, opener, layout):
    documents = summaries(1 if layout == "single" else 40)
    text = {
        "list": json.dumps(documents),
        "lines": "\n".join(map(json.dumps, documents)) + "\n",
        "answer": json.dumps({"data": documents, "meta": {"total_doc": len(documents)}}),
        "single": json.dumps(documents[0], indent=1),
    }[layout]
    path = tmp_path / f"dump.json{'l' if layout == 'lines' else ''}{ending}"
    with opener(path, "wt") as stream:
        stream.write(text)
    source = MaterialsProjectSource(path=path)
    assert [e.id for e in source] == [d["material_id"] for d in documents]
    assert source.fraction == 1.0
    assert Registry.from_entry_points().identify(path) == "mp"


@pytest.mark.parametrize("ending", ["", ".gz"])
def test_a_cut_file_is_named_with_the_document(tmp_path, ending):
    path = tmp_path / f"dump.json{ending}"
    content = json.dumps(summaries(40)).encode()
    content = gzip.compress(content) if ending else content
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=r"dump\.json.*(cut|damaged).*anew"):
        read(path)


def test_other_content_is_named(tmp_path):
    path = tmp_path / "x.json"
    path.write_text("[1, 2]")
    with pytest.raises(DataError, match="document 0 is int, not an object"):
        read(path)
    with pytest.raises(DataError, match="no such file"):
        read(tmp_path / "missing.json")


def test_a_file_is_read_without_holding_it_in_memory(tmp_path):
    import tracemalloc

    path = tmp_path / "many.jsonl"
    lines = [json.dumps(document) for document in summaries(50)]
    with path.open("w") as stream:
        for i in range(8_000):
            stream.write(lines[i % 50] + "\n")
    size = path.stat().st_size
    tracemalloc.start()
    n = sum(1 for _ in MaterialsProjectSource(path=path))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert n == 8_000
    assert peak < size


def test_two_levels_of_one_material_have_two_names(tmp_path):
    documents = thermos(summaries(1))
    documents.append({**documents[0], "thermo_type": "R2SCAN", "energy_type": "R2SCAN"})
    entries = [read_document(document, thermo_in_id=True) for document in documents]
    assert [e.id for e in entries] == ["mp-1000_GGA_GGA+U_R2SCAN", "mp-1000_R2SCAN"]
    assert {e.tags["material_id"] for e in entries} == {"mp-1000"}


@pytest.mark.parametrize(
    ("run_type", "potentials", "expected"),
    [
        ("GGA", "PBE", "PBE"),
        ("GGA+U", "pbe", "PBE+U"),
        ("GGA", "PW91", "GGA"),
        ("R2SCAN", "PBE", "r2SCAN"),
        ("r2SCAN", "PBE", "r2SCAN"),
        ("PBESol", "PBE", "PBEsol"),
        ("SCAN+U", "PBE", "SCAN+U"),
        ("HSE06", "PBE", "HSE06"),
    ],
)
def test_run_types_get_the_usual_names(run_type, potentials, expected):
    assert functional(run_type, potentials) == expected


def test_ingest_recognises_a_dump(tmp_path, capsys):
    path = tmp_path / "dump.jsonl"
    path.write_text("\n".join(map(json.dumps, summaries(12))))
    assert main(["ingest", str(path), "-o", str(tmp_path / "set")]) == 0
    dataset = Dataset.open(tmp_path / "set")
    assert len(dataset) == 12
    assert {"energy", "band_gap", "formation_energy"} <= set(dataset.targets)
