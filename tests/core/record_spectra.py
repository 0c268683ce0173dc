r"""Record what the reference implementation says, for spectra_recorded.json (no test).

Version 2.0.0 is https://github.com/kubanmar/dos-fingerprints at commit 204e97143f98, version 1
is nomad-dos-fingerprints 1.0.2; both Apache-2.0. Their environments:

    python -m venv two && two/bin/pip install 'numpy<2' bitarray==2.4.1 matplotlib \
        ./dos-fingerprints
    python -m venv one && one/bin/pip install numpy==2.3.5 nomad-dos-fingerprints==1.0.2
    two/bin/python tests/core/record_spectra.py SPECTRA tests/core/spectra_recorded.json
    one/bin/python tests/core/record_spectra.py SPECTRA tests/core/spectra_recorded.json

SPECTRA is nomad_dos_fingerprint_test_data.json.xz: 15 densities of states of NOMAD from the
tests of the reference implementation (its other two keys are results). The spectra "made:..."
are sums of Gaussians: lowest and highest energy, number of points, centres, widths, sizes.
"""

from __future__ import annotations

import json
import lzma
import sys
from pathlib import Path

import numpy as np
from nomad_dos_fingerprints import DOSFingerprint, Grid, tanimoto_similarity

EV = 1.602176565e-19
OLD = "dg_cut:56:-2:7:(-10, 5)"
NEW = (
    "nonuniform:-2:0.05:1.05:0.5:5.5:7:-8:7:56",
    "nonuniform:-2:0.05:1.05:0.5:5.5:7:-8:12:56",
    "uniform:0:0.1:2:-5:5:20",
)
MADE = {
    "made:fine": (-12, 11, 2301, (-8, -3, -0.5, 4), (0.5, 1.0, 0.3, 1.5), (2, 3, 4, 5)),
    "made:coarse": (-12, 12, 97, (-8, -3, -0.5, 4), (0.5, 1.0, 0.3, 1.5), (2, 3, 4, 5)),
    "made:high": (-11.03, 13.07, 733, (-6, -2, 1), (2, 0.2, 0.7), (30, 90, 60)),
    "made:cut": (-7.33, 3.21, 1055, (-8, -3, -0.5, 4), (0.5, 1.0, 0.3, 1.5), (2, 3, 4, 5)),
    "made:cut_above": (-12.1, 2.07, 709, (-6, -2, 1), (2, 0.2, 0.7), (3, 9, 6)),
}


def read(path: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return energies in J and channels in states/J by name."""
    spectra = {}
    text = lzma.decompress(Path(path).read_bytes())
    for name, entry in json.loads(text).items():
        if isinstance(entry, dict):
            spectra[name] = (np.array(entry["dos_energies"]), np.array(entry["dos_values"]))
    for name, (low, high, n, *peaks) in MADE.items():
        energies = np.linspace(low, high, n)
        dos = sum(
            size * np.exp(-0.5 * ((energies - centre) / width) ** 2)
            for centre, width, size in zip(*peaks, strict=True)
        )
        spectra[name] = (energies * EV, dos[None] / EV)
    return spectra


def main(source: str, target: str) -> None:
    """Add what the installed version says to the file `target`."""
    path = Path(target)
    recorded = json.loads(path.read_text()) if path.exists() else {"grids": {}}
    spectra = read(source)
    recorded |= {"spectra": list(spectra), "made": MADE}
    is_old = "stepsize" in vars(DOSFingerprint())
    for grid in (OLD,) if is_old else NEW:
        found, heights = [], []
        for energies, channels in spectra.values():
            if is_old:
                one = DOSFingerprint().calculate(energies, channels, grid_id=grid)
                bits = np.unpackbits(np.frombuffer(bytes.fromhex(one.bins), np.uint8))
            else:
                one = DOSFingerprint().calculate(
                    energies, channels, grid_id=grid, convert_data="enc"
                )
                bits = np.array(one.get_bitarray().tolist())
            found.append(one)
            n_pixels = 20 if grid.startswith("uniform") else 56
            heights.append(bits.reshape(-1, n_pixels).sum(axis=1).astype(np.uint8))
        made = Grid.create(grid_id=grid)
        shift = 0 if is_old else made.e_ref
        recorded["grids"][grid] = {
            "edges": [round(float(edge) + shift, 8) for edge, _ in made.grid()],
            "columns": [one.indices for one in found],
            "heights": [height.tobytes().hex() for height in heights],
            "similarity": [
                tanimoto_similarity(a, b) for i, a in enumerate(found) for b in found[:i]
            ],
        }
    path.write_text(json.dumps(recorded, indent=0) + "\n")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
