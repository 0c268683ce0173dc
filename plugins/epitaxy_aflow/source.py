"""Entries from AFLOW: its search service AFLUX, the files of its entries, or local copies."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from epitaxy.entry import Entry
from epitaxy.errors import EntryError, OptionError, SourceError
from epitaxy.protocols import Card
from epitaxy.web import SYSTEM_CLOCK, Client, Clock, LeftOut, Page, pages
from epitaxy_aflow import query
from epitaxy_aflow.entries import QUANTITIES, address_of, read_keywords
from epitaxy_aflow.files import local_entries
from epitaxy_aflow.structure import Structure, from_keywords, from_structure_json

AFLUX = "https://aflow.org/API/aflux/"


Row = tuple[Mapping[str, Any], Structure | None, str]


class AflowSource:
    """Reads AFLOW through its search service, or from copies of its files.

    By default only what the comparison of databases by Bechtel, Speckhard and others uses: PBE
    (with or without U), with both a band gap and a formation energy. What is left out is counted.
    The total energy is that of the whole cell (energy_cell). Forces and stress are there only
    with `files`, or in local folders.

    Args:
        path: folder of an entry or of many (aflowlib.json or .out, *_structure_relax.json or
            CONTCAR.relax.vasp), or a saved answer of AFLUX; packed or not. Of the filters, only
            `functional` and `require` apply to it.
        elements: elements that must all be there.
        exclude_elements: elements that must not be there.
        n_elements: number of elements.
        catalog: ICSD, LIB1 ... LIB6; all by default.
        band_gap: lowest and highest, eV.
        formation_energy: lowest and highest, eV/atom.
        matchbook: more conditions in AFLUX's own words, such as "spacegroup_relax(225)".
        functional: PBE, LDA, PW91 ... with or without U; "any" for all, and for rows that name
            none.
        hubbard: whether entries with U are wanted: with and without by default, or only one.
        require: quantities that an entry must have.
        targets: quantities to keep; all that are there by default.
        files: get each entry's aflowlib.json too, with forces and stress: one request or two per
            entry.
        url: address of AFLUX.
        files_url: address in place of the host named in each entry's aurl, for a mirror.
        page_size: rows per request.
        limit: largest number of rows that are asked for. Without any condition it is needed.
        cache: folder of kept answers; "none" for none, the user's cache folder by default.
        refresh: ask anew for everything.
        attempts: how often a request is tried.
        timeout: seconds that one attempt may take; AFLUX takes its time for large pages.
        requests_per_second: highest rate of requests.
    """

    def __init__(
        self,
        *,
        path: Path | None = None,
        elements: tuple[str, ...] = (),
        exclude_elements: tuple[str, ...] = (),
        n_elements: int | None = None,
        catalog: str = "",
        band_gap: tuple[float, float] | None = None,
        formation_energy: tuple[float, float] | None = None,
        matchbook: str = "",
        functional: str = "PBE",
        hubbard: Literal["any", "with", "without"] = "any",
        require: tuple[str, ...] = ("band_gap", "formation_energy"),
        targets: tuple[str, ...] = (),
        files: bool = False,
        url: str = AFLUX,
        files_url: str = "",
        page_size: int = 500,
        limit: int | None = None,
        cache: str = "",
        refresh: bool = False,
        attempts: int = 6,
        timeout: float = 120.0,
        requests_per_second: float = 2.0,
    ):
        for name in targets:
            if name not in QUANTITIES:
                raise OptionError(f"no {name} here; targets may be {', '.join(QUANTITIES)}")
        if page_size < 1 or (limit is not None and limit < 1):
            raise OptionError(f"page_size = {page_size}, limit = {limit}: 1 or more")
        self._path = path
        self._matchbook = query.matchbook(
            elements=elements,
            exclude_elements=exclude_elements,
            n_elements=n_elements,
            catalog=catalog,
            band_gap=band_gap,
            formation_energy=formation_energy,
            require=require,
            extra=matchbook,
        )
        narrowed = (elements, exclude_elements, n_elements, catalog, band_gap, formation_energy)
        if path is None and url == AFLUX and limit is None and not (any(narrowed) or matchbook):
            raise OptionError(
                "say what to read: elements, exclude_elements, n_elements, catalog, band_gap, "
                "formation_energy, matchbook or path; all of AFLOW is millions of entries: whoever "
                "wants them gives a limit as large, such as limit=10000000"
            )
        self._functional = "" if functional == "any" else functional
        self._hubbard = hubbard
        self._require = require
        self._targets = frozenset(targets)
        self._files = files
        self._url = url
        self._files_url = files_url.rstrip("/")
        self._page_size = page_size
        self._limit = limit
        self._client_options: dict[str, Any] = {
            "cache": cache or None,
            "refresh": refresh,
            "max_attempts": attempts,
            "timeout": timeout,
            "requests_per_second": requests_per_second,
        }
        self.clock: Clock = SYSTEM_CLOCK
        """What tells the time; tests hand in their own."""
        self.fraction: float | None = None
        """Part that was read so far, None where AFLUX does not say how much there is."""
        self.notes: tuple[str, ...] = ()
        """What was left out, and why."""

    @property
    def card(self) -> Card:
        """What the data are."""
        return Card(
            title="AFLOW",
            quantities=QUANTITIES,
            citation="Curtarolo et al., Comput. Mater. Sci. 58, 227 (2012); Rose et al., Comput. "
            "Mater. Sci. 137, 362 (2017)",
            url="https://aflow.org",
        )

    def __iter__(self) -> Iterator[Entry]:
        """Yield the entries in the order of their auid, or of the folders.

        Raises:
            SourceError: the service refuses, or answers nonsense.
            DataError: a file is damaged.
        """
        left_out = LeftOut()
        lacking: set[str] = set()
        n_read = 0
        seen: set[int] = set()
        self.notes, self.fraction = (), None
        try:
            for keywords, structure, retrieved in (
                self._network() if self._path is None else self._local(self._path)
            ):
                try:
                    entry = read_keywords(keywords, structure=structure, retrieved=retrieved)
                    self._check(entry)
                    # AFLUX lists some entries more than once.
                    if (key := hash(entry.id)) in seen:
                        raise EntryError(f"{entry.id}: listed more than once")
                    seen.add(key)
                except EntryError as error:
                    name, reason = _halves(str(error))
                    left_out.add(name, reason)
                    lacking.add(reason)
                    continue
                n_read += 1
                yield self._kept(entry)
            self.fraction = 1.0
        finally:
            self.notes = (*left_out.notes(), *(() if n_read else self._ways_out(lacking)))

    def _ways_out(self, reasons: set[str]) -> Iterator[str]:
        """Yield which filters let nothing through, and how to take them away."""
        if any(reason.startswith("functional ") for reason in reasons):
            yield (
                f"only functional={self._functional} is read: `--option functional=any` takes "
                "every functional, and rows that do not name theirs, as saved answers of AFLUX "
                "without dft_type"
            )
        if lost := [name for name in self._require if f"no {name}" in reasons]:
            rest = ", ".join(name for name in self._require if name not in lost)
            yield (
                f"only entries with {' and '.join(self._require)} are read: `--option "
                f'"require=[{rest}]"` asks for less'
            )
        if any("Hubbard U" in reason for reason in reasons):
            yield f"only hubbard={self._hubbard} is read: `--option hubbard=any` takes all"

    def _check(self, entry: Entry) -> None:
        """Apply the filters that hold for files and service alike."""
        found = entry.method.xc_functional
        plain = found.removesuffix("+U")
        if self._functional and plain != self._functional.removesuffix("+U"):
            raise EntryError(
                f"{entry.id}: functional {found or 'not named'}, not {self._functional}"
            )
        has_u = found.endswith("+U")
        if self._hubbard != "any" and has_u != (self._hubbard == "with"):
            raise EntryError(f"{entry.id}: {'with' if has_u else 'without'} Hubbard U")
        for name in self._require:
            if name not in entry.targets:
                raise EntryError(f"{entry.id}: no {name}")

    def _kept(self, entry: Entry) -> Entry:
        if not self._targets:
            return entry
        kept = {name: value for name, value in entry.targets.items() if name in self._targets}
        return replace(entry, targets=MappingProxyType(kept))

    def _local(self, path: Path) -> Iterator[Row]:
        for n, (keywords, structure) in enumerate(local_entries(Path(path))):
            if self._limit is not None and n >= self._limit:
                return
            yield keywords, structure, ""

    def _network(self) -> Iterator[Row]:
        n_before = 0
        with closing(Client(self._url, clock=self.clock, **self._client_options)) as client:
            for page in pages(self._fetch(client), first=1, limit=self._limit):
                for n, row in enumerate(page.items, start=1):
                    yield (*(self._files_of(client, row) if self._files else (row, None)),
                           page.retrieved)  # fmt: skip
                    if page.total:
                        total = page.total if self._limit is None else min(page.total, self._limit)
                        self.fraction = min(1.0, (n_before + n) / total)
                n_before += len(page.items)
        if not n_before:
            raise SourceError(f"{self._url}: no entry of AFLOW matches {self._matchbook}")

    def _fetch(self, client: Client) -> Any:
        n_read: dict[int, int] = {1: 0}

        def fetch(number: int) -> Page:
            directives = f"paging({number},{self._page_size}),format(json)"
            answer = client.get(
                f"{self._url.rstrip('?')}?{self._matchbook},{directives}",
                check=_check_rows,
            )
            rows, total = query.rows_of(answer.json)
            n_read[number + 1] = n_read[number] + len(rows)
            # Without a total, only an empty page is the end: a short one may be a smaller limit.
            has_more = bool(rows) and (total is None or n_read[number + 1] < total)
            return Page(
                items=rows,
                next=number + 1 if has_more else None,
                total=total,
                retrieved=answer.retrieved,
                address=answer.address,
                forget=answer.forget,
            )

        return fetch

    def _files_of(
        self, client: Client, row: Mapping[str, Any]
    ) -> tuple[Mapping[str, Any], Structure | None]:
        """Return the keywords and the structure in the files of an entry."""
        address = address_of(str(row["aurl"]), host=self._files_url)

        def check(found: Any) -> None:
            if not isinstance(found, Mapping) or found.get("auid") != row["auid"]:
                raise SourceError(f"this is not aflowlib.json of {row['auid']}")

        keywords = client.get_json(f"{address}/aflowlib.json", check=check)
        try:
            if from_keywords(keywords).is_oriented:
                return keywords, None
        except EntryError:
            pass  # the structure file may do; if not, its own message tells
        name = str(row["aurl"]).rpartition("/")[2]
        try:
            document = client.get_json(f"{address}/{name}_structure_relax.json")
        except SourceError as error:
            if "answered 404" in str(error):  # older entries have none: then without forces
                return keywords, None
            raise
        return keywords, from_structure_json(document)


def _check_rows(answer: Any) -> None:
    query.rows_of(answer)


def _halves(text: str) -> tuple[str, str]:
    """Return name and reason of "aflow:0123: reason: details"."""
    head, _, reason = text.partition(": ")
    return head, reason.partition(":")[0].partition(" = ")[0]
