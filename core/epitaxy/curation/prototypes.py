"""Structure prototypes in AFLOW's notation: ``A2B_tP6_136_f_a`` is rutile, whatever its elements.

Anonymous formula, Pearson symbol, spacegroup and Wyckoff letters, as
`pymatgen.analysis.prototypes` finds them with either engine. Source: Mehl et al., Comput. Mater.
Sci. 136, S1 (2017), doi:10.1016/j.commatsci.2017.01.017; Parackal et al., npj Comput. Mater. 10
(2024), for the canonical choice of the letters.
"""

from __future__ import annotations

import logging
import warnings
from functools import partial

import numpy as np

from epitaxy.curation.parallel import map_pieces
from epitaxy.curation.spacegroup import (
    Engine,
    Piece,
    Tell,
    check_engine,
    pieces_of,
    rows_with_structure,
)
from epitaxy.dataset import Dataset

NONE = "failed"
"""Label of what has no prototype: not periodic, no structure, or no symmetry found."""


def prototype_labels(
    dataset: Dataset,
    *,
    engine: Engine = "moyopy",
    symprec: float = 0.1,
    n_workers: int = 1,
    tell: Tell | None = None,
) -> np.ndarray:
    """Return the AFLOW prototype of every structure without its elements, (n,) str.

    It costs about ten times as much as the spacegroup alone.

    Args:
        dataset: the structures.
        engine: "moyopy" or "spglib".
        symprec: Å.
        n_workers: processes.
        tell: called with (structures done, structures in all).

    Raises:
        DataError: there is no such engine, or `symprec` is not positive.
    """
    check_engine(engine, symprec)
    rows = rows_with_structure(dataset)
    labels: list[str] = [NONE] * len(dataset)
    done = 0
    work = partial(_prototypes_of, engine=engine, symprec=symprec)
    for found in map_pieces(work, pieces_of(dataset, rows), n_workers=n_workers):
        for label in found:
            labels[int(rows[done])] = label
            done += 1
        if tell:
            tell(done, len(rows))
    return np.array(labels, dtype=str)


def _prototypes_of(piece: Piece, *, engine: Engine, symprec: float) -> list[str]:
    from pymatgen.analysis.prototypes import (
        get_protostructure_label_from_moyopy,
        get_protostructure_label_from_spglib,
    )

    from epitaxy.curation.matching import to_pymatgen

    logging.getLogger("moyo").setLevel(logging.ERROR)
    found = []
    for structure in to_pymatgen(piece.structures):
        label = None
        if structure is not None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of a gcd that pymatgen itself has deprecated
                try:
                    label = (
                        get_protostructure_label_from_moyopy(
                            structure, raise_errors=True, symprec=symprec
                        )
                        if engine == "moyopy"
                        else get_protostructure_label_from_spglib(
                            structure,
                            raise_errors=True,
                            init_symprec=symprec,
                            fallback_symprec=None,  # another tolerance is another label
                        )
                    )
                except (ValueError, TypeError, AttributeError):
                    label = None  # no symmetry found, or letters that do not make up the formula
        found.append(NONE if label is None else label.partition(":")[0])
    return found
