"""What a comparison of labels found, and how it is said to a person and to the history."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from epitaxy.curation.conventions import Conventions
from epitaxy.errors import ConsistencyError

_OURS = Conventions()
_MANY_PAIRS = 24  # from here on, a line that says nothing clear is suspicious

Label = Literal["energy", "forces", "stress"]
Verdict = Literal["consistent", "inconsistent", "cannot tell"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What the pairs say about one label.

    Attributes:
        label: which label is judged.
        verdict: "consistent", "inconsistent" or "cannot tell".
        cause: what is wrong or why nothing can be said.
        remedy: conventions that would mend it.
        slope: of the energy differences against what this label says of them; 1 is right.
        slope_error: its standard error.
        explained: part of the squared energy differences that the line explains.
        n_pairs: pairs of frames used.
    """

    label: Label
    verdict: Verdict
    cause: str = ""
    remedy: Conventions = _OURS
    slope: float | None = None
    slope_error: float | None = None
    explained: float | None = None
    n_pairs: int = 0

    def __str__(self) -> str:
        said = f"{self.label}: {self.verdict}"
        if self.cause:
            said += f": {self.cause}"
        if self.slope is not None:
            said += (
                f" [slope {self.slope:.4g} ± {self.slope_error or 0:.1g}, explains "
                f"{self.explained or 0:.1%}, {self.n_pairs} pairs]"
            )
        return said


@dataclass(frozen=True, slots=True)
class ConsistencyReport:
    """All findings of one set."""

    findings: tuple[Finding, ...]

    @property
    def inconsistent(self) -> tuple[Finding, ...]:
        """Findings that say that something is wrong."""
        return tuple(f for f in self.findings if f.verdict == "inconsistent")

    @property
    def doubts(self) -> tuple[str, ...]:
        """One sentence for every label that many near pairs fail to confirm."""
        return tuple(
            f"{finding}; with so many near frames this should not be: look at these labels"
            for finding in self.findings
            if finding.verdict == "cannot tell"
            and finding.n_pairs >= _MANY_PAIRS
            and finding.slope is not None
        )

    @property
    def remedy(self) -> Conventions:
        """Conventions that would mend all that is wrong."""
        merged = Conventions()
        for finding in self.inconsistent:
            merged = merged.merged(finding.remedy)
        return merged

    def message(self) -> str:
        """Return what is wrong and what to do, for a person."""
        lines = ["labels contradict each other:"]
        lines += [f"  {finding}" for finding in self.inconsistent]
        if flags := self.remedy.flags():
            lines.append(f"  if that is so, ingest again with: {flags}")
        lines.append(
            "  to keep the labels as they are: --on-inconsistent warn (or --no-consistency-check)"
        )
        return "\n".join(lines)

    def raise_if_inconsistent(self) -> None:
        """Raise what is wrong.

        Raises:
            ConsistencyError: a finding is "inconsistent"; the message has culprit and remedy.
        """
        if self.inconsistent:
            raise ConsistencyError(self.message())

    def step(self) -> dict[str, Any]:
        """Return what the history of a dataset keeps."""
        return {
            "operation": "consistency check",
            "findings": [
                {
                    **{k: v for k, v in asdict(finding).items() if k != "remedy" and v is not None},
                    **({"remedy": finding.remedy.changes} if finding.remedy.changes else {}),
                }
                for finding in self.findings
            ],
        }
