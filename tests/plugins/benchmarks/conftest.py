"""Files in the documented layouts, and the sources that read them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from epitaxy.protocols import Source
from epitaxy_benchmarks import example_files as write
from epitaxy_benchmarks.alignn import AlignnSource
from epitaxy_benchmarks.ani1x import Ani1xSource
from epitaxy_benchmarks.castelli import CastelliSource
from epitaxy_benchmarks.composition_table import CompositionTableSource
from epitaxy_benchmarks.jarvis import JarvisSource
from epitaxy_benchmarks.matbench import MatbenchSource
from epitaxy_benchmarks.matcalc import MatcalcSource
from epitaxy_benchmarks.matsciml import MatscimlSource
from epitaxy_benchmarks.metatrain import MetatrainSource
from epitaxy_benchmarks.mptrj import MptrjSource
from epitaxy_benchmarks.open_catalyst import OpenCatalystSource
from epitaxy_benchmarks.oxide_polymorphs import OxidePolymorphsSource
from epitaxy_benchmarks.qm7x import Qm7xSource
from epitaxy_benchmarks.qm9 import Qm9Source

SOURCES: dict[str, Callable[..., Source]] = {
    "matbench_phonons.json.gz": MatbenchSource,
    "mp-binary-pbe-elasticity.json.gz": MatcalcSource,
    "dft_3d.json.zip": JarvisSource,
    "supporting-information.json.xz": OxidePolymorphsSource,
    "id_prop.json.gz": AlignnSource,
    "oqmd.json.gz": MatscimlSource,
    "MPtrj_small.json.gz": MptrjSource,
    "oc20.aselmdb": OpenCatalystSource,
    "ani1x.h5": Ani1xSource,
    "1000.hdf5": Qm7xSource,
    "dsgdb9nsd.xyz.tar.bz2": Qm9Source,
    "ethanol_reduced_100.xyz.xz": MetatrainSource,
    "perov5_val.csv.xz": CastelliSource,
    "aflow__Egap__train.csv.xz": CompositionTableSource,
}
WRITERS: dict[str, Callable[..., None]] = {
    "matbench_phonons.json.gz": write.write_matbench,
    "mp-binary-pbe-elasticity.json.gz": write.write_matcalc,
    "dft_3d.json.zip": write.write_jarvis,
    "supporting-information.json.xz": write.write_oxide_polymorphs,
    "id_prop.json.gz": write.write_alignn,
    "oqmd.json.gz": write.write_oqmd,
    "MPtrj_small.json.gz": write.write_mptrj,
    "oc20.aselmdb": write.write_aselmdb,
    "ani1x.h5": write.write_ani1x,
    "1000.hdf5": write.write_qm7x,
    "dsgdb9nsd.xyz.tar.bz2": write.write_qm9,
    "ethanol_reduced_100.xyz.xz": write.write_ethanol,
    "perov5_val.csv.xz": write.write_castelli,
    "aflow__Egap__train.csv.xz": write.write_composition_table,
}


def written(folder: Path, name: str, **options: Any) -> Path:
    WRITERS[name](folder / name, **options)
    return folder / name
