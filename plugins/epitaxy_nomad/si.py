"""From the SI units of NOMAD's archives to ours.

The charge is that of CODATA 2018 (exact since the SI of 2019), with which NOMAD converts; ASE's
default is CODATA 2014, which differs by 6e-9: 0.02 eV for an all-electron energy of -3.7e6 eV.
"""

ELEMENTARY_CHARGE = 1.602176634e-19
"""C; 1 eV in J. BIPM, SI Brochure, 9th edition (2019)."""

EV = 1 / ELEMENTARY_CHARGE
"""1 J in eV."""

ANGSTROM = 1e10
"""1 m in Å."""

EV_PER_ANGSTROM = EV / ANGSTROM
"""1 N in eV/Å."""

EV_PER_CUBIC_ANGSTROM = EV / ANGSTROM**3
"""1 Pa = 1 J/m^3 in eV/Å^3."""

GPA = 1e-9
"""1 Pa in GPa."""
