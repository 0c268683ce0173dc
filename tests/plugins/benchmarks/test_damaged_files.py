"""What readers of public sets say of files that are cut, wrong or of another kind."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from epitaxy.errors import DataError
from epitaxy_benchmarks import example_files as write
from epitaxy_benchmarks.ani1x import Ani1xSource
from epitaxy_benchmarks.matbench import MatbenchSource
from epitaxy_benchmarks.matcalc import MatcalcSource
from epitaxy_benchmarks.matsciml import MatscimlSource
from epitaxy_benchmarks.mptrj import MptrjSource
from epitaxy_benchmarks.qm7x import Qm7xSource

from .conftest import SOURCES, WRITERS, written


@pytest.mark.parametrize("name", [name for name in SOURCES if not name.endswith(".aselmdb")])
def test_a_cut_file_is_named(tmp_path: Path, name: str) -> None:
    path = written(tmp_path, name)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) * 2 // 3])
    with pytest.raises(DataError, match=path.name):
        list(SOURCES[name](path=path))


@pytest.mark.parametrize(
    "name",
    [
        "matbench_phonons.json.gz",
        "mp-binary-pbe-elasticity.json.gz",
        "MPtrj_small.json.gz",
        "id_prop.json.gz",
        "aflow__Egap__train.csv.xz",
        "ethanol_reduced_100.xyz.xz",
        "dsgdb9nsd.xyz.tar.bz2",
    ],
)
def test_the_entries_before_a_cut_are_given(tmp_path: Path, name: str) -> None:
    path = tmp_path / Path(name).with_suffix("").name  # unpacked
    WRITERS[name](path, n=400)
    whole = [entry.id for entry in SOURCES[name](path=path)]
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 3 // 4])
    entries = iter(SOURCES[name](path=path))
    kept = [next(entries).id for _ in range(len(whole) // 8)]
    with pytest.raises(DataError, match=path.name):
        kept.extend(entry.id for entry in entries)
    assert len(kept) >= len(whole) // 8
    assert kept == whole[: len(kept)]


@pytest.mark.parametrize(
    ("name", "place", "message"),
    [
        ("matbench_phonons.json.gz", ["data", 1, 0, "lattice"], r"row 1 \(mb-phonons-0002\)"),
        ("mp-binary-pbe-elasticity.json.gz", [1, "shear_modulus_vrh"], "entry 1"),
        ("id_prop.json.gz", [1, "forces"], "frame 1"),
        ("oqmd.json.gz", [1, "cell"], "row 1"),
        ("MPtrj_small.json.gz", ["mp-1", "mp-100-0-1", "force"], "mp-1 frame mp-100-0-1"),
        ("dft_3d.json.gz", [1, "atoms", "elements"], "entry JVASP-2"),
        (
            "supporting-information.json.gz",
            ["CuO2", "rutile", "PBE", "EOS", "calculations", 1, "data", "forces"],
            "CuO2/rutile/PBE/EOS/1",
        ),
    ],
)
def test_a_missing_key_is_named_with_its_entry(
    tmp_path: Path, name: str, place: list[Any], message: str
) -> None:
    model = next(key for key in SOURCES if key.split(".")[0] == name.split(".")[0])
    path = tmp_path / name
    WRITERS[model](path, n=3)
    content = json.loads(gzip.decompress(path.read_bytes()))
    inner = content
    for key in place[:-1]:
        inner = inner[key]
    del inner[place[-1]]
    path.write_bytes(gzip.compress(json.dumps(content).encode()))
    with pytest.raises(DataError, match=f"{message}.*KeyError: '{place[-1]}'"):
        list(SOURCES[model](path=path))


def test_wrong_shapes_are_named(tmp_path: Path) -> None:
    path = tmp_path / "MPtrj_small.json"
    write.write_mptrj(path, n=2)
    content = json.loads(path.read_text())
    for key, value, message in (
        ("force", [[0.0, 0.0, 0.0]], r"forces has shape \(1, 3\), \(4, 3\) needed"),
        ("stress", [1.0, 2.0], r"a tensor has shape \(2,\)"),
        ("magmom", [0.0], r"magmoms has shape \(1,\)"),
    ):
        frame = content["mp-1"]["mp-100-0-1"]
        kept, frame[key] = frame[key], value
        path.write_text(json.dumps(content))
        with pytest.raises(DataError, match=f"frame mp-100-0-1.*{message}"):
            list(MptrjSource(path=path))
        frame[key] = kept


def test_disordered_sites_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "matbench_phonons.json"
    write.write_matbench(path, n=2)
    table = json.loads(path.read_text())
    table["data"][1][0]["sites"][2]["species"] = [{"element": "Cu", "occu": 0.5}]
    path.write_text(json.dumps(table))
    with pytest.raises(DataError, match=r"row 1 .*site 2 is disordered"):
        list(MatbenchSource(path=path))


def test_files_of_another_kind_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "matbench_phonons.json"
    write.write_mptrj(path, n=1)
    with pytest.raises(DataError, match=r"the columns are \[\]"):
        list(MatbenchSource(path=path))
    with pytest.raises(DataError, match="is not a task of MatBench; say which one"):
        MatbenchSource(path=path, task="matbench_nothing")
    with pytest.raises(DataError, match="not a list of structures with properties"):
        MatcalcSource(path=path)
    with pytest.raises(DataError, match="not a development set of MatSciML"):
        MatscimlSource(path=path)
    write.write_alignn(path, n=1)
    with pytest.raises(DataError, match="is a list"):
        list(MptrjSource(path=path))
    path.write_text("no hdf5")
    for source in (Ani1xSource(path=path), Qm7xSource(path=path)):
        with pytest.raises(DataError, match="not an HDF5 file"):
            list(source)
    with pytest.raises(DataError, match="no such file"):
        MptrjSource(path=tmp_path / "nothing.json")
