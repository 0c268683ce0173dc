import copy
import pickle
from collections.abc import Callable

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from ase.calculators.calculator import PropertyNotImplementedError
from ase.calculators.fd import calculate_numerical_forces, calculate_numerical_stress
from ase.filters import FrechetCellFilter
from ase.optimize import BFGS

from epitaxy.errors import CapabilityError, ConfigError, OptionError, StructureError
from epitaxy_calculator.calculator import PotentialCalculator

from .conftest import painn, pair_potential, rattled_silicon, unlike_structures

Make = Callable[..., PotentialCalculator]


class Counting(torch.nn.Module):
    """Counts how often a network is asked."""

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.network = network
        self.cutoff = network.cutoff
        self.n_calls = 0

    def forward(self, graph):
        self.n_calls += 1
        return self.network(graph)


@pytest.mark.parametrize("potential", [pair_potential(), painn()], ids=["pair", "painn"])
def test_forces_and_stress_are_derivatives_of_the_energy(potential) -> None:
    atoms = rattled_silicon()
    atoms.set_cell(atoms.cell.array + np.diag([0.2, -0.1, 0.1]) + 0.1, scale_atoms=True)
    atoms.calc = PotentialCalculator(potential, dtype="float64")
    np.testing.assert_allclose(
        atoms.get_forces(), calculate_numerical_forces(atoms, eps=1e-4), atol=2e-7
    )
    np.testing.assert_allclose(
        atoms.get_stress(), calculate_numerical_stress(atoms, eps=1e-5), atol=1e-8
    )


def test_results_have_the_types_and_shapes_of_ase(make: Make) -> None:
    atoms = rattled_silicon()
    atoms.calc = make()
    assert type(atoms.get_potential_energy()) is float
    results = atoms.calc.results
    assert set(results) == {"energy", "free_energy", "energies", "forces", "stress"}
    assert set(results) == set(atoms.calc.implemented_properties)
    assert results["forces"].shape == (8, 3)
    assert results["stress"].shape == (6,)
    assert atoms.calc.get_property("stress", atoms).shape == (6,)
    assert all(results[k].dtype == np.float64 for k in ("forces", "stress", "energies"))
    assert results["energies"].sum() == pytest.approx(results["energy"], abs=1e-10)
    assert atoms.get_potential_energy(force_consistent=True) == results["energy"]
    atoms.calc.export_properties()


def test_one_evaluation_serves_all_properties() -> None:
    potential = pair_potential()
    potential.network = Counting(potential.network)
    atoms = rattled_silicon()
    atoms.calc = PotentialCalculator([potential])
    network = atoms.calc.members.potentials[0].network
    atoms.get_forces()
    atoms.get_potential_energy()
    atoms.get_stress()
    atoms.get_potential_energies()
    assert network.n_calls == 1
    atoms.set_initial_magnetic_moments([1.0] * 8)
    atoms.get_potential_energy()
    assert network.n_calls == 1
    atoms.positions[0, 0] += 1e-9
    atoms.get_potential_energy()
    assert network.n_calls == 2


@pytest.mark.parametrize(
    "change",
    [
        lambda a: a.positions.__setitem__((0, 0), a.positions[0, 0] + 0.1),
        lambda a: a.set_cell(a.cell.array * 1.01),
        lambda a: a.numbers.__setitem__(0, 6),
        lambda a: a.set_pbc((True, True, False)),
        lambda a: a.__delitem__(0),
        lambda a: a.append("C"),
    ],
)
def test_every_change_of_the_structure_is_noticed(make: Make, change) -> None:
    atoms = rattled_silicon()
    atoms.calc = make()
    before = atoms.get_potential_energy()
    change(atoms)
    fresh = atoms.copy()
    fresh.calc = make()
    assert atoms.get_potential_energy() != before
    assert atoms.get_potential_energy() == pytest.approx(fresh.get_potential_energy(), abs=1e-11)
    np.testing.assert_allclose(atoms.get_forces(), fresh.get_forces(), atol=1e-11)


def test_unlike_structures_in_turn_leave_nothing_behind(ensemble: PotentialCalculator) -> None:
    for _ in range(2):
        for atoms in unlike_structures():
            atoms.calc = ensemble
            forces = atoms.get_forces()
            kept = dict(ensemble.results)
            ensemble.reset()
            fresh = copy.deepcopy(ensemble)
            fresh.calculate(atoms.copy())
            np.testing.assert_allclose(forces, fresh.results["forces"], atol=1e-12)
            assert set(kept) == set(fresh.results)
            assert kept["energy"] == pytest.approx(fresh.results["energy"], abs=1e-12)
            assert kept["forces_std"].shape == (len(atoms), 3)


def test_an_ensemble_gives_mean_and_standard_deviation(
    ensemble: PotentialCalculator,
) -> None:
    atoms = rattled_silicon()
    members = []
    for strength in (0.9, 1.0, 1.2):
        one = PotentialCalculator(pair_potential(strength), dtype="float64")
        one.calculate(atoms)
        members.append(one.results)
    atoms.calc = ensemble
    atoms.get_potential_energy()
    results = ensemble.results
    for name in ("energy", "energies", "forces", "stress"):
        values = np.array([m[name] for m in members])
        np.testing.assert_allclose(results[name], values.mean(axis=0), atol=1e-10)
        np.testing.assert_allclose(results[f"{name}_std"], values.std(axis=0), atol=1e-10)
    np.testing.assert_allclose(results["energy_members"], [m["energy"] for m in members])
    assert type(results["energy_std"]) is float
    uncertainty = ensemble.get_uncertainty(atoms)
    assert set(uncertainty) == {"energy_std", "energies_std", "forces_std", "stress_std"}
    uncertainty["forces_std"][:] = 0
    assert results["forces_std"].any()


def test_a_single_potential_claims_no_uncertainty(make: Make) -> None:
    calculator = make()
    assert not calculator.has_uncertainty
    assert calculator.get_uncertainty(rattled_silicon()) == {}


def test_predict_equals_one_by_one_in_any_mixture(ensemble: PotentialCalculator) -> None:
    structures = unlike_structures()
    for edges_per_batch in (1, 500, 10**6):
        ensemble.edges_per_batch = edges_per_batch
        predicted = ensemble.predict(structures)
        assert len(predicted) == len(structures)
        for atoms, results in zip(structures, predicted, strict=True):
            ensemble.reset()
            ensemble.calculate(atoms)
            assert set(results) == set(ensemble.results)
            for name, value in results.items():
                np.testing.assert_allclose(value, ensemble.results[name], atol=1e-11)
    assert ensemble.predict([]) == []


def test_stress_of_a_molecule_or_a_slab_is_not_implemented(make: Make) -> None:
    for pbc in (False, (True, True, False)):
        atoms = rattled_silicon()
        atoms.pbc = pbc
        atoms.calc = make()
        atoms.get_forces()
        assert "stress" not in atoms.calc.results
        with pytest.raises(PropertyNotImplementedError, match="three directions"):
            atoms.get_stress()
        assert np.isfinite(atoms.get_potential_energy())


def test_an_isolated_atom_has_its_reference_energy_and_no_force(make: Make) -> None:
    for atoms in (Atoms("Si"), Atoms("Si", cell=np.eye(3) * 40, pbc=True)):
        atoms.calc = make()
        assert atoms.get_potential_energy() == pytest.approx(-5.0)
        assert np.array_equal(atoms.get_forces(), np.zeros((1, 3)))


@pytest.mark.parametrize("predict", [False, True], ids=["calculate", "predict"])
@pytest.mark.parametrize(
    ("atoms", "message"),
    [
        (Atoms(), "has no atoms"),
        (Atoms("SiOg", positions=[[0, 0, 0], [2, 0, 0]]), "has Og.*knows C, Si"),
        (Atoms("XSi", positions=[[0, 0, 0], [2, 0, 0]]), "has X"),
        (Atoms("Si2", positions=[[0, 0, 0], [np.nan, 0, 0]]), r"position of atom 1.*1 of 2"),
        (Atoms("Si", positions=[[np.inf, 0, 0]]), "position of atom 0"),
        (Atoms("Si", cell=[[np.nan, 0, 0], [0, 3, 0], [0, 0, 3]], pbc=True), "cell.*not finite"),
        (Atoms("Si", pbc=True), "span no volume"),
        (Atoms("Si", cell=[[3, 0, 0], [3, 0, 0], [0, 0, 3]], pbc=True), "span no volume"),
        (Atoms("Si", cell=[[3, 0, 0], [6, 0, 0], [0, 0, 0]], pbc=[1, 1, 0]), "span no volume"),
        (Atoms("Si2", positions=[[1, 1, 1], [1, 1, 1.001]]), "atoms 0 and 1.*apart"),
        (
            Atoms("Si2", positions=[[0, 0, 0], [4, 0, 0.001]], cell=np.eye(3) * 4, pbc=True),
            "atoms 0 and 1",
        ),
    ],
)
def test_a_structure_without_an_answer_is_refused_by_name(
    make: Make, atoms: Atoms, message: str, predict: bool
) -> None:
    calculator = make()
    if predict:
        with pytest.raises(StructureError, match=f"(?s)structure 1.*{message}"):
            calculator.predict([bulk("Si"), atoms])
    else:
        good = bulk("Si")
        calculator.calculate(good)
        with pytest.raises(StructureError, match=f"(?s)structure.*{message}"):
            calculator.get_property("energy", atoms)
        assert calculator.results == {}
        good.calc = calculator
        assert np.isfinite(good.get_potential_energy())


def test_atoms_written_twice_are_refused_too(make: Make) -> None:
    atoms = bulk("Si", cubic=True)
    atoms += atoms[:1]
    with pytest.raises(StructureError):
        make().calculate(atoms)


def test_results_and_inputs_are_not_shared(make: Make) -> None:
    atoms = rattled_silicon()
    before = atoms.positions.copy()
    atoms.calc = make()
    forces = atoms.get_forces()
    forces[:] = 7.0
    assert not (atoms.get_forces() == 7.0).any()
    kept = atoms.calc.results["forces"]
    copied = kept.copy()
    atoms.positions += 0.1 * np.random.default_rng(0).normal(size=(8, 3))
    atoms.get_forces()
    assert np.array_equal(kept, copied)
    assert atoms.calc.atoms is not atoms
    assert not np.array_equal(atoms.positions, before)


def test_a_deep_copy_is_independent(make: Make) -> None:
    atoms = rattled_silicon()
    atoms.calc = make()
    energy = atoms.get_potential_energy()
    other = copy.deepcopy(atoms)
    other.positions[0] += 0.3
    assert other.get_potential_energy() != energy
    assert atoms.calc.results["energy"] == energy
    assert atoms.get_potential_energy() == energy


def test_a_pickle_carries_results_and_goes_on(make: Make) -> None:
    atoms = rattled_silicon()
    atoms.calc = make(skin=0.7)
    energy = atoms.get_potential_energy()
    other = pickle.loads(pickle.dumps(atoms))
    assert other.calc.results["energy"] == energy
    assert other.calc.skin == 0.7
    atoms.positions[0] += 0.1
    other.positions[0] += 0.1
    assert other.get_potential_energy() == pytest.approx(atoms.get_potential_energy(), abs=1e-12)


def test_the_energy_does_not_depend_on_what_was_asked(make: Make) -> None:
    energies = set()
    for properties in (["energy"], ["forces"], ["stress"], ["energy", "forces", "stress"]):
        calculator = make(dtype="float32")
        calculator.calculate(rattled_silicon(2), properties)
        energies.add(calculator.results["energy"])
    assert len(energies) == 1


def test_global_settings_of_torch_are_left_alone() -> None:
    before = torch.get_default_dtype(), torch.get_num_threads(), torch.is_grad_enabled()
    atoms = rattled_silicon()
    atoms.calc = PotentialCalculator(painn(), dtype="float64")
    atoms.get_forces()
    assert before == (
        torch.get_default_dtype(),
        torch.get_num_threads(),
        torch.is_grad_enabled(),
    )
    with torch.no_grad():
        atoms.positions[0] += 0.1
        assert np.abs(atoms.get_forces()).max() > 1e-3


def test_the_default_dtype_of_torch_does_not_matter(make: Make) -> None:
    atoms = rattled_silicon()
    expected = make()
    expected.calculate(atoms)
    torch.set_default_dtype(torch.float64)
    try:
        calculator = make()
        calculator.calculate(atoms)
    finally:
        torch.set_default_dtype(torch.float32)
    assert np.array_equal(calculator.results["forces"], expected.results["forces"])


def test_the_potential_that_was_given_is_not_changed() -> None:
    potential = pair_potential()
    potential.train()
    PotentialCalculator(potential, dtype="float64")
    assert potential.training
    assert potential.network.strength.requires_grad
    assert potential.network.strength.dtype == torch.float32


def test_large_total_energies_keep_their_precision_in_float32() -> None:
    atoms = rattled_silicon(3)
    single = PotentialCalculator(pair_potential())
    double = PotentialCalculator(pair_potential(), dtype="float64")
    single.calculate(atoms)
    double.calculate(atoms)
    assert single.results["energy"] == pytest.approx(double.results["energy"], abs=1e-3)
    np.testing.assert_allclose(single.results["forces"], double.results["forces"], atol=2e-5)


def test_neighbor_lists_are_reused_and_counted(make: Make) -> None:
    atoms = rattled_silicon()
    atoms.calc = make(skin=0.5)
    for step in range(10):
        atoms.positions[0, 0] += 0.01
        atoms.get_forces()
        assert atoms.calc.neighbor_list_counts == {"builds": 1, "reuses": step}
    without = make(skin=0.0)
    without.calculate(atoms)
    assert without.results["energy"] == pytest.approx(atoms.get_potential_energy(), abs=1e-11)


def test_cell_relaxation_with_ase_finds_the_minimum(make: Make) -> None:
    atoms = bulk("Si", cubic=True)
    atoms.rattle(0.05, seed=1)
    atoms.calc = make()
    assert BFGS(FrechetCellFilter(atoms), logfile=None).run(fmax=1e-4, steps=200)
    assert np.abs(atoms.get_stress()).max() < 1e-5
    assert np.abs(atoms.get_forces()).max() < 1e-4


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"skin": -1.0}, OptionError, "skin"),
        ({"skin": float("nan")}, OptionError, "skin"),
        ({"edges_per_batch": 0}, OptionError, "edges_per_batch"),
        ({"dtype": "float16"}, ConfigError, "float32, float64"),
        ({"device": "abacus"}, ConfigError, "abacus"),
    ],
)
def test_wrong_options_are_refused(options, error, message: str) -> None:
    with pytest.raises(error, match=message):
        PotentialCalculator(pair_potential(), **options)


def test_something_that_is_no_potential_is_refused() -> None:
    with pytest.raises(CapabilityError, match="no potential"):
        PotentialCalculator([object()])


def test_options_cannot_be_changed_afterwards(make: Make) -> None:
    with pytest.raises(OptionError, match="fixed"):
        make().set(skin=2.0)


def test_the_dictionary_of_the_calculator_identifies_it(make: Make) -> None:
    assert make().todict()["dtype"] == "float64"
    assert make().name == "epitaxy"
