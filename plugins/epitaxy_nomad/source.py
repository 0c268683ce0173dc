"""Entries from NOMAD: the public service, any Oasis, or archives in a file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from epitaxy.curation.frames import Rejections
from epitaxy.entry import Entry, Origin
from epitaxy.errors import DataError, OptionError, SourceError
from epitaxy.protocols import Card
from epitaxy.web import SYSTEM_CLOCK, Client, Clock, Page, pages
from epitaxy_nomad.archive import Section, at, section
from epitaxy_nomad.documents import iterate_documents
from epitaxy_nomad.frames import QUANTITIES, Wishes, read_frames
from epitaxy_nomad.query import NEEDS_LOGIN, build_body, build_query, build_required
from epitaxy_nomad.tokens import HELP, read_token, scope

PUBLIC = "https://nomad-lab.eu/prod/v1/api/v1"
"""Address of the public service."""

_QUERY = "entries/archive/query"
_SPDX: Mapping[str, str] = {"CC BY 4.0": "CC-BY-4.0", "CC0": "CC0-1.0"}


@dataclass(frozen=True, slots=True)
class _Place:
    """Where an archive came from."""

    name: str
    origin: Origin
    upload_id: str = ""


class NomadSource:
    """Reads calculations from NOMAD: structures, energies, forces, stresses, gaps, DOS, methods.

    All-electron and pseudopotential energies stand side by side in NOMAD: the code is part of
    each entry's method, and sets of one code and functional are what a model can learn from.

    Args:
        url: address of the API, ".../api/v1"; the public service by default, or any Oasis.
        query: which entries, in the words of NOMAD's API, for example
            {"results.material.elements": ["Si", "O"], "results.method.simulation.program_name":
            "VASP"}.
        upload_id: only entries of this upload.
        dataset_id: only entries of this dataset.
        entry_ids: only these entries.
        owner: whose entries: "public", or with a token "visible", "shared", "user", "staging".
        path: archives in a file instead of the service: .json, .jsonl (.gz, .bz2, .xz) or the
            .zip that NOMAD's download gives.
        layout: sections to read: "run", "data" (nomad-simulations), "results" (one structure, no
            forces), or "auto": the first that holds calculations.
        frames: "last" calculation of each entry, or "all" of a relaxation or trajectory.
        energy: "free" (consistent with the forces), "total", or "auto": free where there is one.
        dos: read densities of states, too (large).
        stress_sign: "auto" turns what VASP's and Quantum ESPRESSO's parsers store; "as-stored"
            and "reversed" are for all codes.
        required: sections to ask the service for, in its words; by default what is read here.
        token_file: file with a token; without it NOMAD_CLIENT_ACCESS_TOKEN where one is needed.
        page_size: entries per request.
        limit: entries of NOMAD to read at most.
        cache: folder of the answers; the user's cache folder by default, "none" for no cache.
        refresh: ask the service anew for what is in the cache.
        requests_per_second: at most.
        attempts: how often a request is tried.
        timeout: seconds that one attempt may take.
    """

    def __init__(
        self,
        *,
        url: str = PUBLIC,
        query: Mapping[str, Any] | None = None,
        upload_id: str = "",
        dataset_id: str = "",
        entry_ids: Sequence[str] = (),
        owner: Literal["public", "visible", "shared", "user", "staging", "admin"] = "public",
        path: Path | None = None,
        layout: Literal["auto", "run", "data", "results"] = "auto",
        frames: Literal["last", "all"] = "last",
        energy: Literal["auto", "free", "total"] = "auto",
        dos: bool = False,
        stress_sign: Literal["auto", "as-stored", "reversed"] = "auto",
        required: Mapping[str, Any] | None = None,
        token_file: Path | None = None,
        page_size: int = 50,
        limit: int | None = None,
        cache: str | None = None,
        refresh: bool = False,
        requests_per_second: float = 5.0,
        attempts: int = 6,
        timeout: float = 120.0,
    ):
        turn_stress = {"auto": None, "as-stored": False, "reversed": True}[stress_sign]
        if page_size < 1 or (limit is not None and limit < 1):
            raise OptionError(f"page_size = {page_size} and limit = {limit} must be 1 or more")
        self._wishes = Wishes(layout, frames, energy, dos, turn_stress)
        self._path = None if path is None else Path(path)
        self._query = build_query(
            query=query, upload_id=upload_id, dataset_id=dataset_id, entry_ids=entry_ids
        )
        if self._path is not None and not self._path.is_file():
            raise DataError(f"{self._path}: no such file")
        if self._path is not None and self._query:
            raise OptionError(f"a query works for the service, not for the file {self._path}")
        if self._path is None and not self._query and limit is None and owner == "public":
            raise OptionError(
                "say what to read: query, upload_id, dataset_id, entry_ids, path or limit; all of "
                "NOMAD is millions of entries"
            )
        self._url = url.rstrip("/")
        self._owner = owner
        self._required = dict(required) if required else build_required(self._wishes)
        self._token_file = token_file
        self._page_size = page_size if limit is None else min(page_size, limit)
        self._limit = limit
        self._cache, self._refresh = cache, refresh
        self._requests_per_second = requests_per_second
        self._max_attempts, self._timeout = attempts, timeout
        self.clock: Clock = SYSTEM_CLOCK
        """What tells the time."""
        self.fraction: float | None = None
        """Part of the entries that was read so far, None where that cannot be known."""
        self.notes: tuple[str, ...] = ()
        """What was left out in the last iteration, one sentence each."""

    @property
    def card(self) -> Card:
        """What the data are."""
        where = self._path.name if self._path else self._url
        return Card(
            title=f"NOMAD: {where}",
            quantities=QUANTITIES if self._wishes.dos else QUANTITIES[:-1],
            license="CC-BY-4.0" if self._path is None and self._url == PUBLIC else "unknown",
            citation="Scheidgen et al., J. Open Source Softw. 8, 5388 (2023), and the uploaders",
            url=where,
        )

    def __iter__(self) -> Iterator[Entry]:
        """Yield the calculations, entry by entry in the order of their ids.

        Raises:
            SourceError: the service cannot be reached, refuses, or answers nonsense.
            DataError: the file is damaged.
        """
        left_out, doubted = Rejections(), Rejections()
        self.notes, self.fraction = (), 0.0
        try:
            archives = self._from_file(self._path) if self._path else self._from_service(left_out)
            for place, archive in archives:
                yield from self._entries(place, archive, left_out, doubted)
        finally:
            doubted.n_seen = left_out.n_seen
            doubts = (line.replace(" dropped: ", " lost a label: ") for line in doubted.lines())
            self.notes = (*left_out.lines(), *doubts)

    def _entries(
        self, place: _Place, archive: Section, left_out: Rejections, doubted: Rejections
    ) -> Iterator[Entry]:
        def refuse(frame: str, reason: str) -> None:
            left_out.n_seen += 1
            left_out.add(reason, f"{place.name}/{frame}" if frame else place.name)

        tags = {"entry": place.name, **({"upload": place.upload_id} if place.upload_id else {})}
        for frame in read_frames(archive, self._wishes, refuse):
            left_out.n_seen += 1
            for doubt in frame.doubts:
                doubted.add(doubt, place.name)
            yield Entry(
                numbers=frame.structure.numbers,
                positions=frame.structure.positions,
                cell=frame.structure.cell,
                pbc=frame.structure.pbc,
                targets=MappingProxyType(frame.targets),
                id=f"{place.name}/{frame.place}" if frame.place else place.name,
                method=frame.method,
                origin=place.origin,
                tags=MappingProxyType({**tags, **frame.tags}),
            )

    def _from_file(self, path: Path) -> Iterator[tuple[_Place, Section]]:
        for number, (part, name, archive) in enumerate(iterate_documents(path)):
            if self._limit is not None and number >= self._limit:
                self.fraction = 1.0
                return
            self.fraction = part
            metadata = section(archive.get("metadata"))
            license_ = str(metadata.get("license") or "")
            origin = Origin(
                url=path.name, database="NOMAD archive", license=_SPDX.get(license_, license_)
            )
            name = str(metadata.get("entry_id") or name)
            yield _Place(name, origin, str(metadata.get("upload_id") or "")), archive

    def _from_service(self, left_out: Rejections) -> Iterator[tuple[_Place, Section]]:
        n_read = 0
        with closing(self._client()) as client:
            listed = pages(self._pager(client), limit=self._limit, name_of=_name_of)
            for page in listed:
                total = page.total
                if total and self._limit is not None:
                    total = min(total, self._limit)
                for item in page.items:
                    n_read += 1
                    self.fraction = min(n_read / total, 1.0) if total else None
                    if "missing" in item:
                        left_out.n_seen += 1
                        left_out.add("the service lists it without an archive", page.address)
                        continue
                    archive = section(item.get("archive"))
                    metadata = section(archive.get("metadata"))
                    license_ = str(metadata.get("license") or "")
                    origin = Origin(
                        url=f"{self._url}/entries/{item['entry_id']}",
                        database=f"NOMAD {metadata.get('nomad_version') or ''}".strip(),
                        license=_SPDX.get(license_, license_),
                        retrieved=page.retrieved,
                    )
                    upload_id = str(item.get("upload_id") or metadata.get("upload_id") or "")
                    yield _Place(str(item["entry_id"]), origin, upload_id), archive

    def _pager(self, client: Client) -> Callable[[str | None], Page]:
        """Return what gets the page for a token; it counts, to notice entries without archive."""
        n_before = 0

        def fetch(token: str | None) -> Page:
            nonlocal n_before
            body = build_body(
                owner=self._owner,
                query=self._query,
                required=self._required,
                page_size=self._page_size,
                page_after_value=token,
            )
            answer = client.post(_QUERY, body, check=_check_answer)
            pagination = answer.json["pagination"]
            total = pagination.get("total")
            items: list[Any] = list(answer.json["data"])
            if isinstance(total, int):
                # the service leaves out entries whose archive it cannot read, without a word
                size = pagination.get("page_size")
                if not isinstance(size, int) or not 0 < size < self._page_size:
                    size = self._page_size
                expected = min(size, total - n_before)
                missing = range(n_before + len(items), n_before + expected)
                items += [{"missing": number} for number in missing]
                n_before += max(0, expected)
            return Page(
                items=items,
                next=pagination.get("next_page_after_value"),
                total=total if isinstance(total, int) else None,
                retrieved=answer.retrieved,
                address=answer.address,
                forget=answer.forget,
            )

        return fetch

    def _client(self) -> Client:
        token = read_token(self._token_file, is_needed=self._owner in NEEDS_LOGIN)
        refresh, self._refresh = self._refresh, False  # the second iteration sees the same answers
        return Client(
            self._url,
            headers={"Authorization": f"Bearer {token}"} if token else {},
            cache=self._cache,
            refresh=refresh,
            requests_per_second=self._requests_per_second,
            max_attempts=self._max_attempts,
            timeout=self._timeout,
            scope=scope(token),
            key_help=HELP,
            clock=self.clock,
        )


def _name_of(item: Any) -> str | None:
    return None if "missing" in item else str(item["entry_id"])


def _check_answer(answer: Any) -> None:
    """Refuse an answer that is not one of ``entries/archive/query``.

    Raises:
        SourceError: a part is missing; the message names it.
    """
    if not isinstance(answer, dict) or not isinstance(answer.get("data"), list):
        raise SourceError(f"the answer holds no list 'data': {str(answer)[:120]}")
    if not isinstance(answer.get("pagination"), dict):
        raise SourceError(f"the answer holds no 'pagination': {sorted(answer)}")
    for item in answer["data"]:
        entry_id = at(item, "entry_id")
        if not isinstance(entry_id, str) or not isinstance(at(item, "archive"), dict):
            raise SourceError(
                f"an entry of the answer has no entry_id or no archive: {str(item)[:120]}"
            )
