"""What the plugin of public and embedded training sets provides."""

from pathlib import Path

from epitaxy import Component, hookimpl

_EXAMPLES = Path(__file__).with_name("examples")

_SETS: tuple[tuple[str, str, str, str, tuple[str, ...]], ...] = (
    # name, module:class, summary, file in examples/, packages that are needed
    (
        "mlearn",
        "mlearn:MlearnSource",
        "the mlearn benchmark (Zuo 2020): Li, Ge, Si, Cu, Ni, Mo from its JSON files",
        "Cu_training.json",
        ("ijson",),
    ),
    (
        "matbench",
        "matbench:MatbenchSource",
        "one of MatBench's 13 tasks from its json.gz file, with the official ids",
        "matbench_phonons.json.gz",
        ("ijson",),
    ),
    (
        "composition_table",
        "composition_table:CompositionTableSource",
        "CSV of formulas and one property without structures (CrabNet, Roost, AFLOW, OQMD)",
        "aflow__Egap__train.csv.xz",
        (),
    ),
    (
        "castelli",
        "castelli:CastelliSource",
        "cubic perovskites ABX3 (perov_5): heats of formation and gaps, from CSV",
        "perov5_val.csv",
        (),
    ),
    (
        "matcalc",
        "matcalc:MatcalcSource",
        "MatCalc's files: MP binaries with K and G, WBM energies, Alexandria phonons",
        "mp-binary-pbe-elasticity.json.gz",
        ("ijson",),
    ),
    (
        "jarvis",
        "jarvis:JarvisSource",
        "JARVIS-DFT's dft_3d file, joined with files of the JARVIS leaderboard",
        "dft_3d.json.zip",
        ("ijson",),
    ),
    (
        "oxide_polymorphs",
        "oxide_polymorphs:OxidePolymorphsSource",
        "BO2 oxides with LDA, PBE, PBEsol and AM05: equations of state with forces, stress",
        "supporting-information.json",
        ("ijson",),
    ),
    (
        "alignn",
        "alignn:AlignnSource",
        "ALIGNN-FF's id_prop.json: energies per atom, forces, stresses",
        "id_prop.json.gz",
        ("ijson",),
    ),
    (
        "matsciml",
        "matsciml:MatscimlSource",
        "Open MatSciML's development sets of MP, OQMD, Alexandria, Carolina and LiPS",
        "oqmd.json.gz",
        ("ijson",),
    ),
    (
        "mptrj",
        "mptrj:MptrjSource",
        "MPtrj (CHGNet): 1.6 million frames of Materials Project relaxations, from JSON",
        "MPtrj_example.json.gz",
        ("ijson",),
    ),
    (
        "open_catalyst",
        "open_catalyst:OpenCatalystSource",
        "OC20, OC22, OMat24 ...: .aselmdb files, or S2EF's extxyz with txt files",
        "oc20_example.aselmdb",
        ("lmdb",),
    ),
    (
        "ani1x",
        "ani1x:Ani1xSource",
        "ANI-1x and ANI-1ccx: organic molecules at three levels of theory, from HDF5",
        "ani1x-example.h5",
        ("h5py",),
    ),
    (
        "qm7x",
        "qm7x:Qm7xSource",
        "QM7-X: 4.2 million conformations with PBE0+MBD, from HDF5",
        "1000.hdf5",
        ("h5py",),
    ),
    (
        "qm9",
        "qm9:Qm9Source",
        "QM9: 133,885 molecules with B3LYP, from the archive or a folder of xyz files",
        "dsgdb9nsd.xyz.tar.bz2",
        (),
    ),
    (
        "metatrain",
        "metatrain:MetatrainSource",
        "metatrain's samples of carbon, ethanol, QM7-X and QM9, each with its own units",
        "ethanol_reduced_100.xyz",
        (),
    ),
)


@hookimpl
def provide_sources() -> list[Component]:
    """Offer the two embedded sets and the readers of public training sets."""
    silicon = Component(
        name="silicon",
        target="epitaxy_benchmarks.silicon:SiliconSource",
        summary="embedded silicon frames with energies, forces and stresses (GPAW, PBE or LDA)",
    )
    convergence = Component(
        name="gpaw_convergence",
        target="epitaxy_benchmarks.convergence:GpawConvergenceSource",
        summary="embedded study of h-BN and silicon: densities of states with many settings (GPAW)",
    )
    return [
        silicon,
        convergence,
        *(
            Component(
                name=name,
                target=f"epitaxy_benchmarks.{target}",
                summary=summary,
                needs=needs,
                extra="benchmarks" if needs else "",
                example={"path": str(_EXAMPLES / example)},
            )
            for name, target, summary, example, needs in _SETS
        ),
    ]


@hookimpl
def provide_commands() -> list[Component]:
    """Offer the verb that runs published benchmarks."""
    return [
        Component(
            name="benchmark",
            target="epitaxy_benchmarks.benchmark_command",
            summary="train on MatBench's tasks with the official folds, against its leaderboard",
            needs=("sklearn",),
            extra="benchmarks",
        )
    ]


@hookimpl(tryfirst=True)
def identify_path(path: Path) -> str | None:
    """Recognise files of public sets by name and content, before general readers do."""
    from epitaxy_benchmarks.recognition import recognise

    return recognise(path)
