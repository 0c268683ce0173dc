"""What ASE finds in its entry-point group `ase.plugins` (`ase info --plugins` lists it).

ASE loads every plugin without a guard, so one that fails would hide all the others: nothing
here may raise, and nothing heavy is imported. The class that ASE looks for lives at a private
path and is experimental in ASE 3.29; where it is absent this module simply offers nothing.
"""

from __future__ import annotations

import epitaxy

try:
    from ase._4.plugins.plugin import CalculatorPlugin
except ImportError:
    __ase_plugins__ = set()
else:
    __ase_plugins__ = {
        CalculatorPlugin(
            name="epitaxy",
            citation="see the card.md of the artifact",
            # ASE asks pip for the version of the module's first name: that of the distribution.
            module=epitaxy,
            implementation="epitaxy_calculator.calculator.PotentialCalculator",
        )
    }
