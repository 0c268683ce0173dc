"""Puts artifacts and datasets into NOMAD: once, whole, and findable.

An upload holds the files unchanged in one folder, ``epitaxy-<digest>`` (`epitaxy_nomad.packing`).
The digest is in the name of the upload, too, so that a second call, on another machine too, finds
what the first one sent and only finishes what is missing (`epitaxy_nomad.publication`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from epitaxy.errors import OptionError
from epitaxy.protocols import Receipt
from epitaxy.receipts import Content, read_content
from epitaxy.web import SYSTEM_CLOCK, Clock
from epitaxy_nomad.packing import EntryChoice, Plan, folder_of
from epitaxy_nomad.publication import PUBLISHER, Publication
from epitaxy_nomad.service import Service
from epitaxy_nomad.source import PUBLIC
from epitaxy_nomad.tokens import read_token

LONGEST_EMBARGO = 36
"""Months; NOMAD accepts no more."""


class NomadPublisher:
    """Publishes in NOMAD or an Oasis.

    Without `publish: true` the upload stays private and can be deleted. A repeated call finds the
    upload by its digest, sends nothing twice and finishes what is missing.

    Args:
        url: address of the API, ".../api/v1"; the public service by default, or any Oasis.
        token_file: file with a token; without it NOMAD_CLIENT_ACCESS_TOKEN.
        upload_name: name for people; by default what the artifact or dataset is. The first digits
            of its digest are added.
        comment: text that people can search for; the full digest is added.
        references: web addresses, for example of the paper.
        coauthors: people who may edit it, too: NOMAD user names, e-mail addresses or ids.
        dataset: name of the NOMAD dataset that the entries go into; made if you have none of
            this name.
        doi: get a DOI for the dataset; all that is in it must be published.
        publish: publish for good: nobody can change or delete it then.
        embargo_months: how long it stays hidden after its publication, 0 to 36.
        to_central: send what is published on an Oasis to the central NOMAD, too.
        central_token_file: file with your token of the central NOMAD, for `to_central`; without
            it the Oasis' own account there is used, which needs an administrator.
        entry: whether to add an entry of a kind that every NOMAD understands: "auto" where the
            plugin of epitaxy is not installed, as without any entry nothing can be found and
            published; "always" or "never".
        compressed: compress on the way; slower, and hardly smaller for weights and arrays.
        max_upload_bytes: refuse to send more; NOMAD's default is 32 GiB.
        deadline: seconds to wait for each of NOMAD's processes.
        requests_per_second: at most.
        attempts: how often a request is tried.
        timeout: seconds that NOMAD may be silent.

    Attributes:
        tell: called with a line for people at each step.
        clock: what tells the time.

    Raises:
        OptionError: options are out of range or contradict each other.
    """

    def __init__(
        self,
        *,
        url: str = PUBLIC,
        token_file: Path | None = None,
        upload_name: str = "",
        comment: str = "",
        references: Sequence[str] = (),
        coauthors: Sequence[str] = (),
        dataset: str = "",
        doi: bool = False,
        publish: bool = False,
        embargo_months: int = 0,
        to_central: bool = False,
        central_token_file: Path | None = None,
        entry: EntryChoice = "auto",
        compressed: bool = False,
        max_upload_bytes: int = 32 * 2**30,
        deadline: float = 3600.0,
        requests_per_second: float = 5.0,
        attempts: int = 6,
        timeout: float = 120.0,
    ):
        if not 0 <= embargo_months <= LONGEST_EMBARGO:
            raise OptionError(
                f"embargo_months = {embargo_months}, but NOMAD allows 0 to {LONGEST_EMBARGO}"
            )
        if doi and not dataset:
            raise OptionError("doi: true needs the option dataset: a DOI is for a dataset")
        if (doi or to_central or embargo_months) and not publish:
            raise OptionError(
                "doi, to_central and embargo_months are for what is published: add publish: true"
            )
        if central_token_file is not None and not to_central:
            raise OptionError("central_token_file is for to_central: true")
        if doi and embargo_months:
            raise OptionError("NOMAD gives no DOI to what is under embargo: leave out one of them")
        if not deadline > 0 or max_upload_bytes < 1:
            raise OptionError(
                f"deadline = {deadline} and max_upload_bytes = {max_upload_bytes} must be above 0"
            )
        self.tell: Callable[[str], None] = lambda line: None
        self.clock: Clock = SYSTEM_CLOCK
        self._url = url
        self._token_file = token_file
        self._central_token_file = central_token_file
        self._upload_name = upload_name
        self._comment = comment
        self._deadline = deadline
        self._plan: dict[str, Any] = {
            "references": tuple(references),
            "coauthors": tuple(coauthors),
            "dataset": dataset,
            "doi": doi,
            "publish": publish,
            "embargo_months": embargo_months,
            "to_central": to_central,
            "entry": entry,
            "compressed": compressed,
            "max_upload_bytes": max_upload_bytes,
        }
        self._web: dict[str, Any] = {
            "requests_per_second": requests_per_second,
            "attempts": attempts,
            "timeout": timeout,
        }

    def publish(self, path: Path, *, dry_run: bool = False) -> Receipt:
        """Publish an artifact or a dataset; return the receipt.

        Args:
            path: its directory.
            dry_run: open no socket; the receipt says what would be sent.

        Raises:
            DataError: it is neither, or cannot be read.
            ArtifactError: it is damaged.
            StoreError: it is damaged.
            OptionError: there is no token.
            PublishError: NOMAD refuses or cannot process it; if an upload holds it already, the
                error's `receipt` says how far it got.
            SourceError: NOMAD cannot be reached.
        """
        plan = self._planned(read_content(path))
        if dry_run:
            return self._announce(plan)
        plan.stream(with_entry=plan.entry != "never")  # refuses what is too large
        token = read_token(self._token_file, is_needed=True, why="publishing needs a token")
        central_token = read_token(self._central_token_file, is_needed=False)
        with Service(self._url, token, clock=self.clock, **self._web) as service:
            return Publication(
                service,
                plan,
                deadline=self._deadline,
                tell=self.tell,
                central_token=central_token,
            ).run()

    def _planned(self, content: Content) -> Plan:
        said = f"epitaxy {content.kind}, sha256 {content.digest}"
        return Plan(
            content,
            name=f"{self._upload_name or content.title} [{folder_of(content.digest)}]",
            comment=f"{self._comment}\n\n{said}".strip(),
            **self._plan,
        )

    def _announce(self, plan: Plan) -> Receipt:
        """Return the receipt of a dry run."""
        stream = plan.stream(with_entry=plan.entry != "never")
        files = {member.name: member.n_bytes for member in stream.members}
        facts: dict[str, Any] = {
            "to": self._url,
            "digest": plan.content.digest,
            "kind": plan.content.kind,
            "n_files": len(files) + 1,
            "n_bytes": stream.n_bytes or sum(files.values()),
            "files": files,
            "metadata": plan.metadata() | ({"dataset": plan.dataset} if plan.dataset else {}),
            "max_upload_bytes": plan.max_upload_bytes,
            "steps": _steps(plan),
        }
        return Receipt(PUBLISHER, plan.folder, "", facts)


def _steps(plan: Plan) -> list[str]:
    steps = ["look whether an upload has it already", "send the files, wait for the processing"]
    if plan.entry == "auto":
        steps[1] += " (the .archive.json only where the plugin of epitaxy is not installed)"
    if plan.dataset:
        steps.append(f"put its entries into the dataset {plan.dataset!r}")
    if plan.publish:
        hidden = f", hidden for {plan.embargo_months} months" if plan.embargo_months else ""
        steps.append(f"publish it for good{hidden}")
    if plan.to_central:
        steps.append("send it to the central NOMAD")
    if plan.doi:
        steps.append("get a DOI for the dataset")
    return steps
