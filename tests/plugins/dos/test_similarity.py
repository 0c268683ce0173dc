"""Similarity of many calculations: matrix, groups, clusters, convergence, rules, files."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from ase.units import J
from hypothesis import given, settings
from hypothesis import strategies as st
from lattice_model import convergence_dataset, honeycomb_dos

from epitaxy.cli import main
from epitaxy.curation.recipe import recipe_of, run_recipe
from epitaxy.dataset import Dataset
from epitaxy.entry import Entry, Method
from epitaxy.errors import DataError, OptionError, StoreError
from epitaxy.spectra import DEFAULT_GRID, PHONON_GRID, fingerprints, tanimoto
from epitaxy_dos.clusters import find_clusters
from epitaxy_dos.convergence import best_converged, curves
from epitaxy_dos.matrix import nearest, picture, similarity_matrix
from epitaxy_dos.report import page, write_study
from epitaxy_dos.rules import keep, kept
from epitaxy_dos.settings import magnitude, order_by, ordered, setting
from epitaxy_dos.spectra import ENERGIES, Fingerprints, fingerprints_of
from epitaxy_dos.statistics import effects, group_statistics
from epitaxy_dos.study import StudyOptions, study
from epitaxy_dos.table import read_table

SHARED = Path(__file__).parents[3] / "../shared/data"


def shared(path: str) -> Path:
    found = SHARED / path
    if not found.exists():
        pytest.skip(f"{path} is not here")
    return found


def random_fingerprints(n: int, *, seed: int = 0, n_kinds: int = 5) -> Fingerprints:
    """Copies of a few spectra with noise: some are alike, some are not."""
    rng = np.random.default_rng(seed)
    kinds = rng.integers(0, 40, (n_kinds, 144))
    noisy = kinds[rng.integers(0, n_kinds, n)] + rng.integers(0, 7, (n, 144))
    return Fingerprints(
        heights=noisy.astype(np.uint8),
        rows=np.arange(n),
        grid=DEFAULT_GRID,
        covered=np.tile([0, 144], (n, 1)),
        fraction=np.ones(n),
        target="dos",
        per="cell",
    )


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return convergence_dataset()


OPTIONS = StudyOptions(
    group_by=("k-mesh", "xc_functional"),
    sort_by=("cutoff",),
    parameters=("k-mesh", "cutoff"),
    threshold=0.8,
)


# --- matrix ---


@pytest.mark.parametrize("n_workers", [1, 3])
def test_matrix_in_blocks_and_threads_is_the_matrix(tmp_path: Path, n_workers: int) -> None:
    found = random_fingerprints(2500)
    exact = tanimoto(found.heights, found.heights)
    stored = similarity_matrix(found, path=tmp_path / "matrix.npy", n_workers=n_workers)
    np.testing.assert_array_equal(stored, exact.astype(np.float32))
    np.testing.assert_array_equal(similarity_matrix(found, n_workers=n_workers), stored)
    with pytest.raises(StoreError, match="exists"):
        similarity_matrix(found, path=tmp_path / "matrix.npy")


def test_nearest_are_the_most_similar_others() -> None:
    found = random_fingerprints(300)
    exact = tanimoto(found.heights, found.heights)
    np.fill_diagonal(exact, -1)
    near = nearest(found, k=4)
    np.testing.assert_array_equal(near.similarity, -np.sort(-exact, axis=1)[:, :4])
    np.testing.assert_array_equal(np.take_along_axis(exact, near.index, 1), near.similarity)
    assert nearest(random_fingerprints(1), k=4).index.shape == (1, 0)


def test_picture_of_a_large_matrix_has_the_means_of_its_blocks() -> None:
    found = random_fingerprints(300)
    exact = tanimoto(found.heights, found.heights)
    expected = exact.reshape(60, 5, 60, 5).mean(axis=(1, 3))
    np.testing.assert_allclose(picture(found, size=60), expected, rtol=1e-6)
    np.testing.assert_allclose(picture(found, size=1000), exact, rtol=1e-6)


# --- spectra of a dataset ---


def test_entries_without_spectrum_are_counted_and_empty_ones_named(dataset: Dataset) -> None:
    bare = Entry.from_atoms(dataset[0].to_atoms(), id="bare")
    dark = Entry.from_atoms(dataset[0].to_atoms(), id="dark", targets={"dos": np.full(2001, 1e-6)})
    mixed = Dataset.from_entries([bare, dark, dataset[0]])
    with pytest.raises(DataError, match=r"dark: .*empty fingerprint"):
        fingerprints_of(mixed)
    found = fingerprints_of(mixed, leave_out_empty=True)
    assert (found.n_without, found.empty, found.rows.tolist()) == (1, ("dark",), [2])
    with pytest.raises(DataError, match="no structure has the target"):
        fingerprints_of(Dataset.from_entries([bare]))


def test_a_supercell_is_the_same_per_atom_and_another_per_cell(dataset: Dataset) -> None:
    atoms = dataset[-1].to_atoms()
    dos = dataset[-1].targets["dos"]
    both = Dataset.from_entries(
        [
            Entry.from_atoms(atoms, id="cell", targets={"dos": dos}),
            Entry.from_atoms(atoms * (2, 1, 1), id="two", targets={"dos": 2 * dos}),
        ]
    )
    per_atom = fingerprints_of(both, per="atom").heights
    per_cell = fingerprints_of(both).heights
    assert tanimoto(per_atom, per_atom)[0, 1] == 1
    assert tanimoto(per_cell, per_cell)[0, 1] < 0.6


def test_spectra_that_end_early_are_compared_where_both_are_known(dataset: Dataset) -> None:
    full = dataset[-1]
    dos = np.where((ENERGIES["dos"] >= -6) & (ENERGIES["dos"] <= 2), full.targets["dos"], 0)
    short = Entry.from_atoms(
        full.to_atoms(),
        id="short",
        targets={"dos": dos},
        tags={"dos_reference": "valence band maximum, computed from -6.00 to 2.00 eV"},
    )
    found = fingerprints_of(Dataset.from_entries([full, short]))
    assert found.fraction[0] == 1
    assert 0.4 < found.fraction[1] < 0.7
    assert similarity_matrix(found)[0, 1] == 1
    looked = study(Dataset.from_entries([full, short]))
    assert looked.to_json()["covered_in_part"] == {"short": pytest.approx(0.53, abs=0.1)}
    assert "short" in page(Dataset.from_entries([full, short]), looked)


# --- settings ---


@pytest.mark.parametrize("as_tags", [False, True])
def test_settings_are_found_in_tags_and_in_free_text(as_tags: bool) -> None:
    dataset = convergence_dataset(as_tags=as_tags)
    for name in ("k-mesh", "k_mesh", "kpoints", "K mesh"):
        assert ordered(setting(dataset, name)) == [f"{k}x{k}x1" for k in (2, 4, 8, 16, 24)]
    assert ordered(setting(dataset, "cutoff")) == ["300 eV", "500 eV"]
    assert ordered(setting(dataset, "functional")) == ["LDA", "PBE"]
    assert set(setting(dataset, "formula")) == {"BN"}
    with pytest.raises(DataError, match=r"'smearing'; there are: .*cutoff, .*k-mesh"):
        setting(dataset, "smearing")
    with pytest.raises(DataError, match="Did you mean 'k-mesh'"):
        setting(dataset, "k-meshes")


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("400 eV", 400),
        ("8x8x4", 256),
        ("8 8 4", 256),
        ("1e-6", 1e-6),
        ("-0.5", -0.5),
        ("dzp", None),
    ],
)
def test_numbers_in_settings_are_understood(text: str, number: float | None) -> None:
    found = magnitude(text)
    assert np.isnan(found) if number is None else found == number


def test_settings_are_sorted_by_their_numbers() -> None:
    texts = np.array(["12x12x12", "2x2x2", "-", "gamma", "8x8x8"])
    assert ordered(texts) == ["2x2x2", "8x8x8", "12x12x12", "gamma", "-"]
    assert texts[order_by([texts])].tolist() == ordered(texts)


# --- groups ---


def test_groups_have_the_means_of_all_their_pairs() -> None:
    found = random_fingerprints(90)
    rng = np.random.default_rng(1)
    member = rng.integers(0, 4, 90)
    member[member == 2] = 0
    member[7] = 2  # alone: there is no pair inside
    exact = tanimoto(found.heights, found.heights)
    groups = group_statistics(found, ("a", "b", "c", "d"), member)
    for i in range(4):
        for j in range(4):
            pairs = (member[:, None] == i) & (member == j) & ~np.eye(90, dtype=bool)
            if pairs.any():
                assert groups.mean[i, j] == pytest.approx(exact[pairs].mean(), rel=1e-12)
                assert groups.lowest[i, j] == exact[pairs].min()
            else:
                assert i == j == 2
                assert np.isnan(groups.mean[i, j])


def test_effect_of_a_setting_is_the_mean_of_pairs_that_differ_in_it_alone() -> None:
    found = random_fingerprints(60)
    rng = np.random.default_rng(2)
    a, b = (np.array(list("xyz"))[rng.integers(0, 3, 60)] for _ in range(2))
    structures = np.array(["s", "t"])[rng.integers(0, 2, 60)]
    exact = tanimoto(found.heights, found.heights)
    upper = np.triu(np.ones((60, 60), dtype=bool), 1) & (structures[:, None] == structures)
    only = upper & (a[:, None] != a) & (b[:, None] == b)
    first = effects(found, {"a": a, "b": b}, structures)[0]
    assert first.n_only == only.sum()
    assert first.only == pytest.approx(exact[only].mean(), rel=1e-12)
    assert first.lowest == exact[only].min()
    assert first.same == pytest.approx(exact[upper & (a[:, None] == a)].mean(), rel=1e-12)
    assert first.n_same + first.n_different == upper.sum()


def test_mesh_matters_more_than_cutoff_in_the_model(dataset: Dataset) -> None:
    looked = study(dataset, OPTIONS)
    by_name = {effect.name: effect for effect in looked.effects}
    assert by_name["k-mesh"].only < by_name["xc_functional"].only < by_name["cutoff"].only


# --- clusters ---


@given(st.integers(0, 1000), st.floats(0.3, 0.95))
@settings(max_examples=15, deadline=None)
def test_every_pair_of_a_complete_cluster_is_similar(seed: int, threshold: float) -> None:
    found = random_fingerprints(40, seed=seed)
    exact = tanimoto(found.heights, found.heights)
    clusters = find_clusters(found, threshold=threshold, kind="complete")
    same = clusters.labels[:, None] == clusters.labels
    assert (exact[same] >= threshold - 1e-9).all()
    assert (np.diff(clusters.sizes) <= 0).all()
    assert clusters.sizes.sum() == 40


@given(st.integers(0, 1000), st.floats(0.3, 0.95))
@settings(max_examples=15, deadline=None)
def test_connected_clusters_are_the_components_of_the_graph(seed: int, threshold: float) -> None:
    from scipy.sparse.csgraph import connected_components

    found = random_fingerprints(40, seed=seed)
    exact = tanimoto(found.heights, found.heights)
    n, labels = connected_components(exact >= threshold, directed=False)
    clusters = find_clusters(found, threshold=threshold, kind="connected")
    assert len(clusters.sizes) == n
    pairs = {(x, y) for x, y in zip(clusters.labels.tolist(), labels.tolist(), strict=True)}
    assert len(pairs) == n  # the same partition under other numbers


def test_impossible_clusters_are_refused() -> None:
    with pytest.raises(OptionError, match="threshold"):
        find_clusters(random_fingerprints(4), threshold=1.2)
    with pytest.raises(OptionError, match="there are complete, average, connected"):
        find_clusters(random_fingerprints(4), kind="ward")


# --- convergence and rules ---


def test_reference_is_the_entry_with_the_largest_parameters(dataset: Dataset) -> None:
    looked = study(dataset, OPTIONS)
    assert looked.best is not None
    named = {looked.ids[i] for i in looked.best.reference}
    assert named == {"LDA-24-500", "PBE-24-500"}
    for i in np.unique(looked.best.reference):
        assert looked.best.similarity[i] == 1


def test_curves_rise_to_the_reference(dataset: Dataset) -> None:
    looked = study(dataset, OPTIONS)
    mesh = [c for c in looked.curves if c.parameter == "k-mesh" and c.has_reference]
    assert [c.label for c in mesh] == ["LDA, cutoff 500 eV", "PBE, cutoff 500 eV"]
    for curve in mesh:
        assert curve.texts == ("2x2x1", "4x4x1", "8x8x1", "16x16x1", "24x24x1")
        assert (np.diff(curve.similarity) > 0).all()
        assert curve.converged_from(curve.similarity[3]) == "16x16x1"
        assert curve.converged_from(0.9999) is None  # only the reference is like itself


def test_a_named_reference_is_used_for_all(dataset: Dataset) -> None:
    looked = study(dataset, StudyOptions(reference="PBE-8-300", group_by=("xc_functional",)))
    assert looked.best is not None
    assert {looked.ids[i] for i in looked.best.reference} == {"PBE-8-300"}
    with pytest.raises(DataError, match="is no entry"):
        study(dataset, StudyOptions(reference="nobody"))


def test_parameter_without_numbers_is_refused() -> None:
    texts = np.array(["tight", "light"])
    with pytest.raises(DataError, match="is a number"):
        best_converged(random_fingerprints(2), {"basis": texts}, np.array(["", ""]))


def test_curves_of_a_single_value_are_left_out() -> None:
    found = random_fingerprints(3)
    parameters = {"k": np.array(["2", "2", "-"])}
    best = best_converged(found, parameters, np.array(["s"] * 3))
    assert curves(parameters, best) == []


def test_the_converged_part_is_kept_with_a_step_in_the_history(dataset: Dataset) -> None:
    looked = study(dataset, OPTIONS)
    found = keep(dataset, looked)
    assert looked.best is not None
    expected = {looked.ids[i] for i in np.nonzero(looked.best.similarity >= 0.8)[0]}
    assert set(found.ids) == expected
    assert 0 < len(found) < len(dataset)
    step = found.history[-1]
    assert step["operation"] == "similarity"
    assert step["counts"] == {
        "before": 20,
        "without_spectrum": 0,
        "dropped": 20 - len(found),
        "after": len(found),
    }
    assert step["digest_before"] == dataset.digest
    again = run_recipe(dataset, recipe_of(found.history))
    assert again.digest == found.digest


def test_rules_keep_the_best_or_the_largest_cluster(dataset: Dataset) -> None:
    looked = study(dataset, OPTIONS)
    assert set(keep(dataset, looked, "best").ids) == {"LDA-24-500", "PBE-24-500"}
    largest = kept(looked, "largest")
    assert largest.sum() == looked.clusters.sizes[0]
    with pytest.raises(DataError, match="--parameter"):
        kept(study(dataset, StudyOptions()), "converged")
    with pytest.raises(DataError, match="another dataset"):
        keep(dataset[:10], looked)


# --- files and the verb ---


def test_the_verb_writes_everything_in_one_order(tmp_path: Path, dataset: Dataset) -> None:
    dataset.save(tmp_path / "set")
    out = tmp_path / "out"
    arguments = [
        *("similarity", str(tmp_path / "set"), "-o", str(out)),
        *("--group-by", "k-mesh", "--group-by", "xc", "--sort-by", "cutoff"),
        *("--parameter", "k-mesh", "--threshold", "0.8", "--neighbors", "2"),
        *("--keep-to", str(tmp_path / "kept"), "--workers", "1"),
    ]
    assert main(arguments) == 0
    names = {path.name for path in out.iterdir()}
    assert names == {
        *("matrix.npy", "neighbors.npz", "figure.png", "curves.png", "report.html"),
        *("clusters.json", "similarity.json", "entries.csv"),
    }
    matrix = np.load(out / "matrix.npy")
    with (out / "entries.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [row["id"] for row in rows][:4] == ["LDA-2-300", "LDA-2-500", "PBE-2-300", "PBE-2-500"]
    heights = {
        row["id"]: fingerprints(
            ENERGIES["dos"], dataset[list(dataset.ids).index(row["id"])].targets["dos"]
        )
        for row in (rows[0], rows[7])
    }
    exact = tanimoto(heights[rows[0]["id"]], heights[rows[7]["id"]])[0, 0]
    assert matrix[0, 7] == np.float32(exact)
    np.testing.assert_array_equal(matrix, matrix.T)
    assert (np.diag(matrix) == 1).all()
    clusters = json.loads((out / "clusters.json").read_text())
    listed = [name for cluster in clusters["clusters"] for name in cluster["ids"]]
    assert sorted(listed) == sorted(dataset.ids)
    for cluster in clusters["clusters"]:
        where = [i for i, row in enumerate(rows) if row["id"] in cluster["ids"]]
        assert matrix[np.ix_(where, where)].min() >= 0.8 - 1e-6
    text = (out / "report.html").read_text()
    assert text.count("<svg") == 3
    assert "<script" not in text
    assert 'src="' not in text  # nothing is loaded from elsewhere
    assert len(Dataset.open(tmp_path / "kept")) < len(dataset)
    assert main(arguments) == 2  # nothing is replaced without --overwrite
    assert main([*arguments, "--overwrite"]) == 0


def test_text_of_a_dataset_cannot_break_the_page(tmp_path: Path) -> None:
    nasty = '<script>alert("x")</script>'
    entry = convergence_dataset(meshes=(4,), cutoffs=(300,))[0]
    evil = Entry.from_atoms(
        entry.to_atoms(),
        id=nasty,
        targets={"dos": honeycomb_dos(4)},
        method=Method("c", nasty, ""),
        tags={"group": nasty},
    )
    both = Dataset.from_entries([entry, evil])
    looked = study(both, StudyOptions(group_by=("group", "xc"), parameters=()))
    write_study(both, looked, tmp_path / "out")
    assert "<script" not in (tmp_path / "out" / "report.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--grid", "nonsense"], "short name: default, wide, old, phonon"),
        (["--group-by", "smearing"], "there are: "),
        (["--target", "phonon_dos"], "no structure has the target"),
        (["--threshold", "0"], "threshold"),
        (["--keep", "best"], "--keep-to"),
        (["--keep-to", "x"], "--parameter"),
        (["--workers", "-1"], "n_workers"),
        (["--neighbors", "-1"], "--neighbors -1"),
    ],
)
def test_wrong_use_is_explained(
    tmp_path: Path,
    dataset: Dataset,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    words: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    dataset.save(tmp_path / "set")
    assert main(["similarity", "set", "-o", "out", *arguments]) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_new_study_leaves_no_file_of_an_earlier_one(tmp_path: Path, dataset: Dataset) -> None:
    dataset.save(tmp_path / "set")
    out = tmp_path / "out"
    command = ["similarity", str(tmp_path / "set"), "-o", str(out)]
    assert main([*command, "--parameter", "k-mesh", "--neighbors", "2"]) == 0
    (out / "notes.txt").write_text("mine")
    assert main([*command, "--matrix", "no", "--overwrite"]) == 0
    assert {path.name for path in out.iterdir()} == {
        *("figure.png", "report.html", "clusters.json", "similarity.json", "entries.csv"),
        "notes.txt",
    }


def test_a_study_that_broke_off_is_not_mixed_with_the_next(
    tmp_path: Path, dataset: Dataset, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset.save(tmp_path / "set")
    out = tmp_path / "out"
    out.mkdir()
    (out / "matrix.npy").write_bytes(b"of a run that was killed")
    assert main(["similarity", str(tmp_path / "set"), "-o", str(out)]) == 2
    assert "matrix.npy" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"dos_energies": [2e-19, 1e-19], "dos_values": [[1, 1]]}, "a: energies .* increase"),
        ({"dos_energies": [1e-19, 2e-19], "dos_values": [[1, float("nan")]]}, "a: .* not finite"),
        ({"dos_energies": [1e-19, 2e-19], "dos_values": [[1, 1, 1]]}, "a: .* shape"),
        ({"dos_energies": "none", "dos_values": [[1, 1]]}, "a: could not convert"),
        ("1;2", "dos_energies"),
    ],
)
def test_damaged_spectra_without_structures_are_named(
    tmp_path: Path, entry: object, words: str
) -> None:
    path = tmp_path / "spectra.json"
    path.write_text(json.dumps({"a": entry}))
    with pytest.raises(DataError, match=words):
        read_table(path)


def test_a_spectrum_in_joules_is_known_as_far_as_it_goes(tmp_path: Path) -> None:
    path = tmp_path / "spectra.json"
    energies = np.linspace(-6, 6, 601)
    channel = np.full(601, 2.0)
    entry = {"dos_energies": energies / J, "dos_values": np.array([channel, -channel]) * J}
    path.write_text(json.dumps({"a": {name: x.tolist() for name, x in entry.items()}}))
    table = read_table(path)
    assert table.tag("dos_reference")[0] == "as given, computed from -6.00 to 6.00 eV"
    assert table.values[0, 1000] == pytest.approx(4.0)  # both spins, one drawn downwards


def test_15_spectra_of_nomad_are_compared_without_structures(tmp_path: Path) -> None:
    path = shared("dos/nomad_dos_fingerprint_test_data.json.xz")
    table = read_table(path)
    assert len(table) == 15
    assert main(["similarity", str(path), "-o", str(tmp_path / "out"), "--threshold", "0.6"]) == 0
    facts = json.loads((tmp_path / "out" / "similarity.json").read_text())
    assert facts["n_entries"] == 15


@pytest.mark.slow
def test_all_phonon_spectra_of_jarvis_are_compared(tmp_path: Path) -> None:
    path = shared("jarvis_leaderboard/edos_pdos_ph_dos.json.zip")
    table = read_table(path)
    assert len(table) == 14243
    found = fingerprints_of(table, target="phonon_dos")
    assert found.grid == PHONON_GRID
    matrix = similarity_matrix(found, path=tmp_path / "matrix.npy")
    rows = np.random.default_rng(0).integers(0, 14243, 50)
    np.testing.assert_array_equal(
        matrix[np.ix_(rows, rows)],
        tanimoto(found.heights[rows], found.heights[rows]).astype(np.float32),
    )
