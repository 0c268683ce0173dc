import os
import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, graphene, molecule
from ase.spacegroup import crystal

from epitaxy.composition import composition_entry, compositions, reduced_formula
from epitaxy.curation.fingerprint import same_structures
from epitaxy.curation.groups import add_groups, duplicate_groups, find_tag
from epitaxy.curation.matching import matched_groups
from epitaxy.curation.prototypes import prototype_labels
from epitaxy.curation.spacegroup import spacegroup_numbers
from epitaxy.dataset import Dataset
from epitaxy.entry import Entry
from epitaxy.errors import DataError, EntryError
from epitaxy.split import leaks, split_by_group, split_together

RUTILE = crystal(
    ["Ti", "O"],
    [(0, 0, 0), (0.305, 0.305, 0)],
    spacegroup=136,
    cellpar=[4.594, 4.594, 2.959, 90, 90, 90],
)
ANATASE = crystal(
    ["Ti", "O"],
    [(0, 0, 0), (0, 0, 0.208)],
    spacegroup=141,
    cellpar=[3.784, 3.784, 9.515, 90, 90, 90],
)
QUARTZ = {
    number: crystal(
        ["Si", "O"],
        [(0.4697, 0, z), (0.4133, 0.2672, z + sign * 0.1188)],
        spacegroup=number,
        cellpar=[4.916, 4.916, 5.405, 90, 90, 120],
    )
    for number, z, sign in ((152, 1 / 3, 1), (154, 2 / 3, -1))
}
PEROVSKITE = crystal(
    ["Ca", "Ti", "O"],
    [(0, 0, 0), (0.5, 0.5, 0.5), (0.5, 0.5, 0)],
    spacegroup=221,
    cellpar=[3.9, 3.9, 3.9, 90, 90, 90],
)
PROTOTYPES = [RUTILE, ANATASE, PEROVSKITE, bulk("Si"), bulk("GaAs", "zincblende", a=5.65)]
PROTOTYPES += [bulk("Mg"), bulk("NaCl", "rocksalt", a=5.64), QUARTZ[152]]


def dataset_of(*frames):
    return Dataset.from_entries(Entry.from_atoms(a, id=f"s{i}") for i, a in enumerate(frames))


def strained(atoms, strain=0.01):
    copy = atoms.copy()
    copy.set_cell(copy.cell.array * (1 + strain), scale_atoms=True)
    return copy


def rattled(atoms, seed=0, noise=0.01):
    copy = atoms.copy()
    copy.rattle(noise, rng=np.random.default_rng(seed))
    return copy


def shifted(atoms):
    copy = atoms.copy()
    copy.translate([0.3, 1.7, -2.2])
    return copy


def permuted(atoms, seed=0):
    return atoms[np.random.default_rng(seed).permutation(len(atoms))]


def turned(atoms):
    copy = atoms.copy()
    copy.rotate(33, (1, 2, 3), rotate_cell=True)
    return copy


def resettled(atoms):
    """The same crystal with other lattice vectors."""
    copy = atoms.copy()
    copy.set_cell(np.array([[1, 0, 0], [1, 1, 0], [0, -1, 1]]) @ copy.cell.array)
    return copy


COPIES = {
    "strained": strained,
    "rattled": rattled,
    "shifted": shifted,
    "permuted": permuted,
    "turned": turned,
    "another setting": resettled,
    "supercell": lambda atoms: atoms * (2, 1, 2),
    "all at once": lambda atoms: permuted(shifted(turned(rattled(strained(atoms) * (1, 2, 1))))),
}


def test_a_label_is_the_reduced_formula_and_the_spacegroup():
    labels = duplicate_groups(dataset_of(RUTILE, RUTILE * (2, 1, 1), ANATASE, PEROVSKITE))
    assert labels.tolist() == ["O2Ti_136", "O2Ti_136", "O2Ti_141", "O3CaTi_221"]


@pytest.mark.parametrize("engine", ["moyopy", "spglib"])
@pytest.mark.parametrize("change", COPIES)
def test_changed_copies_keep_their_label_at_symprec_0_1(engine, change):
    copies = dataset_of(*(COPIES[change](atoms) for atoms in PROTOTYPES))
    originals = duplicate_groups(dataset_of(*PROTOTYPES), engine=engine)
    assert duplicate_groups(copies, engine=engine).tolist() == originals.tolist()


def test_the_papers_full_cell_form_lets_supercells_escape_and_is_an_option():
    labels = duplicate_groups(dataset_of(RUTILE, RUTILE * (1, 1, 2)), formula="cell")
    assert labels.tolist() == ["O4Ti2_136", "O8Ti4_136"]


def test_mirror_images_have_one_label():
    numbers = spacegroup_numbers(dataset_of(*QUARTZ.values()))
    assert sorted(numbers.tolist()) == [152, 154]
    assert set(duplicate_groups(dataset_of(*QUARTZ.values()))) == {"O2Si_152"}


@pytest.mark.parametrize("engine", ["moyopy", "spglib"])
def test_a_failure_is_its_own_group_and_never_spacegroup_1(engine):
    broken = bulk("Si")
    broken.positions[1] = broken.positions[0] + [0.05, 0, 0]  # closer than symprec
    grouped = add_groups(dataset_of(bulk("Si"), broken), engine=engine)
    assert grouped.tag(f"spacegroup@{engine}-0.1").tolist() == ["Si_227", "Si_failed"]
    assert grouped.history[-1]["counts"]["n_failed"] == 1


@pytest.mark.parametrize("engine", ["moyopy", "spglib"])
def test_cells_that_are_no_cells_fail_by_themselves_only(engine, capfd):
    rng = np.random.default_rng(0)
    frames = [bulk("Si")]
    for k in range(60):
        cell = rng.normal(size=(3, 3)) * [1e-3, 1, 100][k % 3]
        cell[2] = [cell[1] + 1e-9 * cell[0], 0 * cell[0], cell[2] * 1e-6][k % 3]
        fractions = rng.random((3, 3))
        fractions[2] = fractions[1]
        frames.append(Atoms("HHeHg", positions=fractions @ cell, cell=cell, pbc=True))
    grouped = add_groups(dataset_of(*frames, RUTILE), engine=engine, match=True, prototype=True)
    labels = grouped.tag(f"spacegroup@{engine}-0.1").tolist()
    assert labels == ["Si_227", *["HHeHg_failed"] * 60, "O2Ti_136"]
    assert len(set(same_structures([grouped])[0][[0, 1, -1]])) == 3
    assert capfd.readouterr().err == ""


def test_what_has_no_spacegroup_is_grouped_by_formula():
    flat = graphene()
    flat.center(5, axis=2)
    entries = [
        Entry.from_atoms(molecule("C2H6"), id="molecule"),
        Entry.from_atoms(flat, id="sheet"),
        composition_entry("Ti2O4", targets={}),
    ]
    grouped = add_groups(Dataset.from_entries(entries))
    labels = grouped.tag("spacegroup@moyopy-0.1").tolist()
    assert labels == ["H3C_cluster", "C_cluster", "O2Ti"]
    counts = grouped.history[-1]["counts"]
    assert (counts["n_not_periodic"], counts["n_without_structure"]) == (2, 1)


def test_several_processes_find_the_same_and_tell_how_far_they_are():
    dataset = dataset_of(*PROTOTYPES * 40)
    told = []
    alone = add_groups(dataset, match=True, prototype=True)
    together = add_groups(
        dataset, match=True, prototype=True, n_workers=2, tell=lambda *how: told.append(how)
    )
    assert alone.digest == together.digest
    assert {stage for stage, _, _ in told} == {"spacegroups", "prototypes", "matching"}
    assert told[-1][1] == told[-1][2]


def test_the_history_says_how_the_groups_were_made():
    grouped = add_groups(dataset_of(RUTILE, ANATASE), engine="spglib", symprec=0.05)
    step = grouped.history[-1]
    assert step["operation"] == "groups"
    assert (step["options"]["engine"], step["options"]["symprec"]) == ("spglib", 0.05)
    assert step["versions"]["spglib"]
    assert step["tag"] == "spacegroup@spglib-0.05" in grouped.tags
    assert split_by_group(grouped, "spacegroup", valid=0, test=1).method["groups"] == step["tag"]


def test_groups_of_different_engines_or_tolerances_are_never_mixed():
    frames = [RUTILE, ANATASE, PEROVSKITE, bulk("Si"), bulk("Mg")]
    first = add_groups(dataset_of(*frames))
    for other in (
        add_groups(dataset_of(*frames), engine="spglib"),
        add_groups(dataset_of(*frames), symprec=0.01),
    ):
        with pytest.raises(DataError, match=r"different engines or tolerances.*moyopy-0\.1"):
            split_together([first, other], groups="spacegroup")
        splits = [split_by_group(d, "spacegroup", valid=1, test=1) for d in (first, other)]
        with pytest.raises(DataError, match="different engines or tolerances"):
            leaks(splits, "spacegroup")
        both = add_groups(other)
        assert find_tag([first, both], "spacegroup") == "spacegroup@moyopy-0.1"
        with pytest.raises(DataError, match="several ways, say which one"):
            find_tag(both, "spacegroup")
    with pytest.raises(DataError, match="epitaxy groups"):
        split_by_group(dataset_of(*frames), "spacegroup")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"engine": "findsym"}, "use one of moyopy, spglib"),
        ({"symprec": 0.0}, "symprec = 0.0"),
        ({"symprec": float("nan")}, "symprec = nan"),
        ({"formula": "ase"}, "use reduced or cell"),
        ({"n_workers": 0}, "n_workers = 0"),
    ],
)
def test_wrong_options_are_named(options, message):
    with pytest.raises(DataError, match=message):
        duplicate_groups(dataset_of(RUTILE), **options)


def test_matching_tells_apart_what_a_label_gathers():
    distorted = RUTILE.copy()
    distorted.set_scaled_positions(
        crystal(["Ti", "O"], [(0, 0, 0), (0.15, 0.15, 0)], spacegroup=136, cell=RUTILE.cell)
        .get_scaled_positions()
    )  # fmt: skip
    dataset = dataset_of(RUTILE, rattled(RUTILE) * (1, 1, 2), distorted, ANATASE, distorted)
    groups = duplicate_groups(dataset)
    matched = matched_groups(dataset, groups)
    assert len(set(groups)) == 2
    assert matched[0] == matched[1] != matched[2] == matched[4]
    assert matched[3] == "O2Ti_141#0"


def test_the_work_in_one_group_is_bounded(monkeypatch):
    monkeypatch.setattr("epitaxy.curation.matching.MAX_REPRESENTATIVES", 2)
    frames = [strained(bulk("Si"), 0.01 * k) for k in range(3)]
    frames += [rattled(bulk("Si", cubic=True), seed, noise=0.6) for seed in range(4)]
    matched = matched_groups(dataset_of(*frames), np.array(["Si"] * 7))
    assert len(set(matched[:3])) == 1
    assert set(matched) == {"Si#0", "Si#1", "Si#more"}


@pytest.mark.parametrize("engine", ["moyopy", "spglib"])
def test_prototypes_are_those_of_aflow_whatever_the_elements(engine):
    # A2B_tP6_136_f_a, AB3C_cP5_221_a_c_b and A_cF8_227_a are in the AFLOW library.
    tin = RUTILE.copy()
    tin.symbols[tin.numbers == 22] = "Sn"
    labels = prototype_labels(
        dataset_of(RUTILE, tin, PEROVSKITE, bulk("Si"), molecule("H2O")), engine=engine
    )
    assert labels.tolist() == [
        "A2B_tP6_136_f_a",
        "A2B_tP6_136_f_a",
        "AB3C_cP5_221_a_c_b",
        "A_cF8_227_a",
        "failed",
    ]


# --- formulas ---


@pytest.mark.parametrize(
    "formula", ["TiO2", "O2Ti", "Ti2O4", "Ti(O)2", "Ti0.5O1.0", "Ti0.3333O0.6667", "Ti33.33O66.67"]
)
def test_however_a_formula_is_written_the_composition_is_one(formula):
    assert reduced_formula(formula) == "O2Ti"
    dataset = Dataset.from_entries(
        [composition_entry(formula, targets={}), Entry.from_atoms(RUTILE * 2)]
    )
    assert compositions(dataset).tolist() == ["O2Ti", "O2Ti"]


def test_fine_fractions_do_not_depend_on_the_scale():
    assert reduced_formula("Fe0.98C0.02") == reduced_formula("Fe98C2") == "CFe49"
    assert reduced_formula("Fe0.12345C0.87655") == reduced_formula("Fe12.345C87.655")
    with pytest.raises(EntryError, match="not a chemical formula"):
        reduced_formula("TiO2?")


def test_an_empty_dataset_has_no_groups():
    empty = dataset_of(RUTILE)[:0]
    assert compositions(empty).shape == (0,)
    assert add_groups(empty, match=True).history[-1]["counts"]["n_groups"] == 0


# --- equal structures ---


@pytest.mark.parametrize("change", [name for name in COPIES if name[:2] not in ("st", "ra", "al")])
def test_equal_structures_are_found_in_any_description(change):
    frames = [*PROTOTYPES, *(COPIES[change](atoms) for atoms in PROTOTYPES)]
    (labels,) = same_structures([dataset_of(*frames)])
    n = len(PROTOTYPES)
    assert labels[:n].tolist() == labels[n:].tolist()
    assert len(set(labels)) == n


def test_different_structures_are_not_equal():
    moved = RUTILE.copy()
    moved.positions[3, 0] += 0.02
    molecules = [molecule("CH3CH2OH"), molecule("CH3OCH3"), turned(permuted(molecule("CH3OCH3")))]
    (labels,) = same_structures([dataset_of(RUTILE, moved, strained(RUTILE), ANATASE, *molecules)])
    assert len(set(labels.tolist())) == 6
    assert labels[-1] == labels[-2]


# --- interruption ---


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_an_interruption_leaves_no_process_and_no_file_behind(tmp_path, how):
    Dataset.from_entries(
        Entry.from_atoms(rattled(RUTILE * 3, seed), id=f"r{seed}") for seed in range(400)
    ).save(tmp_path / "in")
    code = textwrap.dedent(
        f"""
        import sys
        from epitaxy.cli import main
        if __name__ == "__main__":
            sys.exit(main(["groups", {str(tmp_path / "in")!r}, "-o", {str(tmp_path / "out")!r},
                           "--match", "--workers", "2"]))
        """
    )
    script = tmp_path / "job.py"
    script.write_text(code)
    process = subprocess.Popen(
        [sys.executable, script], start_new_session=True, stderr=subprocess.PIPE, text=True
    )
    while len(_session_of(process.pid)) < 3 and process.poll() is None:
        time.sleep(0.05)
    if how == signal.SIGINT:
        os.killpg(process.pid, how)  # as a terminal does
    else:
        process.send_signal(how)
    _, said = process.communicate(timeout=60)
    assert process.returncode == (130 if how == signal.SIGINT else -how)
    deadline = time.monotonic() + 20
    while _session_of(process.pid) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not _session_of(process.pid)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "job.py"]
    if how == signal.SIGINT:
        assert said.strip().endswith("epitaxy: interrupted")
        assert "Traceback" not in said


def _session_of(leader):
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                with open(f"/proc/{entry}/stat") as stream:
                    state, _, _, session = stream.read().rpartition(")")[2].split()[:4]
            except OSError:
                continue
            if int(session) == leader and state != "Z":
                found.append(int(entry))
    return found
