"""Fingerprints and similarities, against the reference implementation and against mathematics."""

from __future__ import annotations

import json
import lzma
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from epitaxy.errors import DataError, OptionError
from epitaxy.spectra import (
    DEFAULT_GRID,
    OLD_GRID,
    WIDE_GRID,
    Grid,
    coverage,
    fingerprints,
    intersections,
    states_per_column,
    tanimoto,
)

RECORDED = json.loads((Path(__file__).parent / "spectra_recorded.json").read_text())
"""What the reference implementation says; see record_spectra.py."""

SPECTRA = Path(__file__).parents[2] / "../shared/data/dos/nomad_dos_fingerprint_test_data.json.xz"
EV = 1.602176565e-19
"""J; the value of the reference implementation."""

ENERGIES = np.arange(-1000, 1001) / 100
GRIDS = list(RECORDED["grids"])
heights = arrays(np.uint8, (5, 20), elements=st.integers(0, 56))


def gaussians(
    energies: np.ndarray, centres: list[float], widths: list[float], sizes: list[float]
) -> np.ndarray:
    return sum(  # type: ignore[return-value]
        size * np.exp(-0.5 * ((energies - centre) / width) ** 2)
        for centre, width, size in zip(centres, widths, sizes, strict=True)
    )


def spectrum(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Energies, eV, and states/eV of a recorded spectrum."""
    if name in RECORDED["made"]:
        low, high, n, *peaks = RECORDED["made"][name]
        energies = np.linspace(low, high, n)
        return energies, gaussians(energies, *peaks)
    if not SPECTRA.exists():
        pytest.skip(f"{SPECTRA.name} is not here")
    entry = json.loads(lzma.decompress(SPECTRA.read_bytes()))[name]
    return np.array(entry["dos_energies"]) / EV, np.sum(entry["dos_values"], axis=0) * EV


def recorded(grid: str, name: str) -> np.ndarray:
    index = RECORDED["spectra"].index(name)
    return np.frombuffer(bytes.fromhex(RECORDED["grids"][grid]["heights"][index]), np.uint8)


def random_heights(seed: int, n: int = 20) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 57, (n, 144), dtype=np.uint8)


@pytest.mark.parametrize("grid", GRIDS)
def test_columns_of_a_grid_are_those_of_the_reference_implementation(grid: str) -> None:
    edges = RECORDED["grids"][grid]["edges"]
    # Version 1 never fills the column after its last but one energy.
    edges = edges[:-1] if grid.startswith("dg_cut") else edges
    np.testing.assert_allclose(Grid.parse(grid).edges, edges, rtol=0, atol=1e-9)


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("name", ["made:fine", "made:coarse", "made:high"])
def test_made_spectra_have_the_heights_of_the_reference_implementation(
    grid: str, name: str
) -> None:
    energies, dos = spectrum(name)
    found = fingerprints(energies, dos, grid=Grid.parse(grid))
    np.testing.assert_array_equal(found[0], recorded(grid, name))


@pytest.mark.parametrize("grid", GRIDS)
def test_15_spectra_of_nomad_have_heights_and_similarities_of_the_reference(grid: str) -> None:
    names = [name for name in RECORDED["spectra"] if not name.startswith("made:")]
    assert len(names) == 15
    found = np.concatenate([fingerprints(*spectrum(name), grid=Grid.parse(grid)) for name in names])
    np.testing.assert_array_equal(found, [recorded(grid, name) for name in names])
    similarity = tanimoto(found, found)
    pairs = np.concatenate([similarity[i, :i] for i in range(len(names))])
    expected = RECORDED["grids"][grid]["similarity"][: len(pairs)]
    np.testing.assert_allclose(pairs, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("grid", GRIDS)
def test_where_a_spectrum_is_cut_columns_covered_wholly_equal_the_reference(grid: str) -> None:
    for name in ("made:cut", "made:cut_above"):
        energies, dos = spectrum(name)
        found = coverage(energies, Grid.parse(grid))
        first, stop = RECORDED["grids"][grid]["columns"][RECORDED["spectra"].index(name)]
        assert found.start == first
        assert abs(found.stop - stop) <= 1  # it may count the last column in part, or not at all
        stop = min(stop, found.stop)
        ours = fingerprints(energies, dos, grid=Grid.parse(grid))[0, first:stop]
        np.testing.assert_array_equal(ours, recorded(grid, name)[: stop - first])


def test_default_grid_is_kubans() -> None:
    assert DEFAULT_GRID.id == "nonuniform:-2:0.05:1.05:0.5:5.5:7:-8:7:56"
    assert DEFAULT_GRID.n_columns == 144
    assert OLD_GRID.id == "dg_cut:56:-2:7:(-10,5)"
    assert WIDE_GRID.edges[0] == pytest.approx(-10, abs=0.5)
    assert 9 < WIDE_GRID.edges[-1] <= 10


@pytest.mark.parametrize("text", [*GRIDS, DEFAULT_GRID.id.replace("-2", "-2.0")])
def test_id_of_a_grid_names_the_same_grid(text: str) -> None:
    grid = Grid.parse(text)
    assert Grid.parse(grid.id) == grid
    assert grid.id.count(":") == text.count(":")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "kuban",
        "uniform:0:1e-9:1:-5:5:30",
        "uniform:0:1e-9:1:-1e-7:1e-7:30",
        "nonuniform:-2:0.05:1.05:0.5:5.5:7:-8:1e12:56",
        "dg_cut:56:-2:7:(-1e9,5)",
        "custom:0123",
        "nonuniform:1:2",
        "uniform:0:a:2:-5:5:20",
        "uniform:0:0:2:-5:5:20",
        "uniform:0:0.1:2:5:-5:20",
        "uniform:0:0.1:2:-5:5:400",
        "uniform:0:40:2:-5:5:20",
        "uniform:nan:0.1:2:-5:5:20",
        "nonuniform:-2:0.05:inf:0.5:5.5:7:-8:7:56",
        "dg_cut:56:-2:7",
    ],
)
def test_what_is_no_grid_is_refused_with_the_reason(text: str) -> None:
    with pytest.raises(OptionError, match="grid"):
        Grid.parse(text)


def test_states_of_a_column_are_the_integral_over_it() -> None:
    line = 3.0 + 0.1 * ENERGIES
    edges = DEFAULT_GRID.edges
    integral = 3.0 * np.diff(edges) + 0.05 * np.diff(edges**2)
    for energies in (ENERGIES, np.array([-11.0, -3.03, 0.7, 11.0])):
        states = states_per_column(energies, 3.0 + 0.1 * energies)
        np.testing.assert_allclose(states[0], integral, rtol=1e-12)
    assert states_per_column(ENERGIES, line).sum() == pytest.approx(integral.sum(), rel=1e-12)


def test_states_do_not_depend_on_the_spectra_beside_them() -> None:
    spectra = np.random.default_rng(0).random((50, 2001))
    together = states_per_column(ENERGIES, spectra)
    alone = np.concatenate([states_per_column(ENERGIES, one) for one in spectra])
    np.testing.assert_array_equal(together, alone)


def test_twice_the_cell_is_another_fingerprint() -> None:
    dos = gaussians(ENERGIES, [-5, 0], [1, 0.4], [1, 2])
    one, two = fingerprints(ENERGIES, np.stack([dos, 2 * dos]))
    assert tanimoto(one[None], two[None])[0, 0] < 0.6  # half of the pixels


def test_similarity_falls_as_a_spectrum_is_shifted() -> None:
    shifts = [0.0, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0]
    dos = np.stack([gaussians(ENERGIES - s, [-5, -1], [0.5, 0.3], [4, 5]) for s in shifts])
    similarity = tanimoto(fingerprints(ENERGIES, dos[:1]), fingerprints(ENERGIES, dos))[0]
    assert similarity[0] == 1.0
    assert (np.diff(similarity) < 0).all()
    assert similarity[-1] < 0.2


def test_a_finer_mesh_of_energies_says_the_same() -> None:
    coarse = np.linspace(-12, 12, 1201)
    fine = np.linspace(-12, 12, 12001)
    a = fingerprints(coarse, gaussians(coarse, [-5, -1], [0.5, 0.3], [4, 5]))
    b = fingerprints(fine, gaussians(fine, [-5, -1], [0.5, 0.3], [4, 5]))
    assert tanimoto(a, b)[0, 0] > 0.99


@given(heights, heights)
@settings(max_examples=60, deadline=None)
def test_similarity_is_symmetric_bounded_and_one_for_itself(a: np.ndarray, b: np.ndarray) -> None:
    ab = tanimoto(a, b)
    np.testing.assert_array_equal(ab, tanimoto(b, a).T)
    assert ((ab >= 0) & (ab <= 1)).all()
    diagonal = np.diag(tanimoto(a, a))
    np.testing.assert_array_equal(diagonal, a.any(axis=1).astype(float))


@given(heights)
@settings(max_examples=60, deadline=None)
def test_one_minus_similarity_obeys_the_triangle_inequality(a: np.ndarray) -> None:
    distance = 1 - tanimoto(a, a)
    through = (distance[:, :, None] + distance[None, :, :]).min(axis=1)
    assert (distance <= through + 1e-12).all()


@given(heights, heights)
@settings(max_examples=60, deadline=None)
def test_similarity_is_that_of_the_pixels_one_by_one(a: np.ndarray, b: np.ndarray) -> None:
    pixels_a, pixels_b = (
        (x[:, :, None] > np.arange(56)).reshape(len(x), -1).astype(int) for x in (a, b)
    )
    common = pixels_a @ pixels_b.T
    np.testing.assert_array_equal(intersections(a, b), common)
    either = pixels_a.sum(axis=1)[:, None] + pixels_b.sum(axis=1) - common
    np.testing.assert_array_equal(
        tanimoto(a, b), np.where(either, common / (either + (either == 0)), 0)
    )


@pytest.mark.parametrize("seed", range(5))
def test_matrix_of_similarities_is_positive_definite(seed: int) -> None:
    a = random_heights(seed, 60)
    assert np.linalg.eigvalsh(tanimoto(a, a)).min() > -1e-10


@pytest.mark.parametrize("shape", [(1, 1), (63, 2), (64, 2048), (65, 2049), (200, 70)])
def test_blocks_do_not_change_the_counts(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(1)
    a, b = (rng.integers(0, 256, (n, 9), dtype=np.uint8) for n in shape)
    np.testing.assert_array_equal(
        intersections(a, b), np.minimum(a[:, None], b[None]).sum(axis=2, dtype=np.int64)
    )


def test_counts_of_large_grids_do_not_overflow() -> None:
    full = np.full((2, 1000), 255, dtype=np.uint8)
    assert (intersections(full, full) == 255_000).all()


def test_only_columns_that_both_cover_are_compared() -> None:
    a, b = random_heights(0), random_heights(1)
    covered_a = np.array([[0, 144]] * 10 + [[20, 100]] * 10)
    covered_b = np.array([[50, 144]] * 19 + [[120, 144]])
    similarity = tanimoto(a, b, covered_a=covered_a, covered_b=covered_b)
    for i, j in [(0, 0), (3, 19), (12, 4)]:
        both = slice(max(covered_a[i, 0], covered_b[j, 0]), min(covered_a[i, 1], covered_b[j, 1]))
        assert similarity[i, j] == tanimoto(a[i : i + 1, both], b[j : j + 1, both])[0, 0]
    assert similarity[15, 19] == 0  # nothing in common


def test_coverage_names_the_columns_inside_the_energies() -> None:
    assert coverage(ENERGIES).fraction == 1
    half = coverage(np.linspace(-10, -2, 100))
    assert half.start == 0
    assert DEFAULT_GRID.edges[half.stop] <= -2
    assert 0.4 < half.fraction < 0.6
    assert coverage(np.linspace(20, 30, 5)).fraction == 0


BAD: list[tuple[Any, Any, str]] = [
    (ENERGIES, np.zeros(2001), "empty fingerprint"),
    (ENERGIES, np.full(2001, 1e-6), "empty fingerprint"),
    (ENERGIES + 100, np.ones(2001), "cover no column"),
    (ENERGIES * EV, np.ones(2001), "cover no column"),
    (ENERGIES[::-1], np.ones(2001), "increase"),
    (ENERGIES, np.full(2001, np.nan), "spectrum 0 has values that are not finite"),
    (ENERGIES, np.ones(2000), "2001 energies"),
    (ENERGIES[:1], np.ones(1), "at least 2"),
    (ENERGIES, np.stack([np.ones(2001), np.zeros(2001)]), "spectrum 1 has an empty"),
]


@pytest.mark.parametrize(("energies", "dos", "words"), BAD)
def test_spectra_that_cannot_be_used_are_refused(
    energies: np.ndarray, dos: np.ndarray, words: str
) -> None:
    with pytest.raises(DataError, match=words):
        fingerprints(energies, dos)


def test_fingerprints_of_different_grids_are_not_compared() -> None:
    dos = np.ones(2001)
    a, b = fingerprints(ENERGIES, dos), fingerprints(ENERGIES, dos, grid=WIDE_GRID)
    with pytest.raises(DataError, match="different grids"):
        tanimoto(a, b)
    with pytest.raises(DataError, match="uint8"):
        tanimoto(a.astype(float), a)
    with pytest.raises(DataError, match="covered columns"):
        tanimoto(a, a, covered_a=np.array([[0, 144]] * 3))
