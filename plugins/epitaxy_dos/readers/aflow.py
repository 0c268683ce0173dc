"""AFLOW: *_dosdata.json; energies in eV relative to the Fermi energy, states/eV of the cell."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from epitaxy.entry import Method
from epitaxy.errors import DataError, EntryError
from epitaxy_dos.readers.files import text_of
from epitaxy_dos.spectrum import Spectrum


def read_aflow(path: Path) -> list[Spectrum]:
    """Return the total density of states of AFLOW's JSON.

    Raises:
        DataError: the file is damaged, or lacks something.
    """
    try:
        document = json.loads(text_of(path))
        total = document["tDOS_data"]
        pairs = (("tDOS",), ("spin_up", "spin_down"), ("spin_majority", "spin_minority"))
        names = next(pair for pair in pairs if all(name in total for name in pair))
        formula = "".join(
            f"{symbol}{n}"
            for symbol, n in zip(document["species"], document["composition"], strict=True)
        )
        return [
            Spectrum(
                energies=np.array(total["energy"], dtype=np.float64),
                channels=np.array([total[name] for name in names], dtype=np.float64),
                fermi=0.0,
                formula=formula,
                method=Method(code="VASP"),
            )
        ]
    except json.JSONDecodeError as error:
        raise DataError(f"{path}: damaged JSON: {error}") from error
    except EntryError:
        raise
    except (KeyError, TypeError, ValueError, StopIteration) as error:
        raise DataError(f"{path}: no total density of states as AFLOW writes it") from error
