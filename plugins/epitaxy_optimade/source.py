"""Entries from OPTIMADE: any provider, by the standard filter language, or a dump in a file."""

from __future__ import annotations

import difflib
import functools
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from epitaxy.curation.frames import Rejections
from epitaxy.entry import Entry, Method, Origin
from epitaxy.errors import DataError, EntryError, OptionError, SourceError
from epitaxy.protocols import Card
from epitaxy.quantities import quantity
from epitaxy.web import SYSTEM_CLOCK, Answer, Client, Clock, Page, pages
from epitaxy_optimade.dump import iterate_dump
from epitaxy_optimade.properties import FUNCTIONALS, KNOWN, Property, factor, read_targets
from epitaxy_optimade.providers import (
    REGISTRY,
    Facts,
    MakeClient,
    Server,
    distinct,
    find_servers,
    read_facts,
    section,
    units_of,
)
from epitaxy_optimade.structures import FIELDS, read_atoms

_CODES: Mapping[str, str] = {"mp": "VASP", "oqmd": "VASP", "alexandria": "VASP", "jarvis": "VASP"}


class OptimadeSource:
    """Reads structures, and what providers add to them, from OPTIMADE servers or a dump.

    Disordered and incomplete structures are left out, counted and named.

    Args:
        providers: which databases: names from the list of providers ("mp", "oqmd",
            "alexandria/alexandria-pbe"), addresses of servers, or "name=address"; several are
            read one after another.
        filter: in OPTIMADE's filter language, for example 'elements HAS ALL "Si","O" AND
            nelements=2'; everything by default.
        path: a file instead of servers: OPTIMADE JSON lines, or JSON with structure documents;
            .gz, .bz2 and .xz are unpacked on the way.
        mapping: what fields of a provider mean: target -> field, for example {"band_gap":
            "_oqmd_band_gap"}; a dot leads into a dictionary. Documented fields of mp, oqmd,
            alexandria, jarvis and odbx are known.
        units: unit of a mapped field, target -> unit, where the server does not say it.
        page_limit: structures per request.
        limit: structures that are read from each provider at most.
        on_error: what to do if one of several providers fails: "stop", or "skip" it with a warning.
        registry: address of the list of providers.
        xc_functional: of the calculations, where the documents do not say it.
        code: program and version of the calculations, where known.
        cache: folder of the answers; the user's cache folder by default, "none" for no cache.
        refresh: ask the servers anew for what is in the cache.
        requests_per_second: to one server at most.
        attempts: how often a request is tried.
        timeout: seconds that one attempt may take.
    """

    def __init__(
        self,
        *,
        providers: str | Sequence[str] = (),
        filter: str = "",
        path: Path | None = None,
        mapping: Mapping[str, str] | None = None,
        units: Mapping[str, str] | None = None,
        page_limit: int = 100,
        limit: int | None = None,
        on_error: Literal["stop", "skip"] = "stop",
        registry: str = REGISTRY,
        xc_functional: str = "",
        code: str = "",
        cache: str | None = None,
        refresh: bool = False,
        requests_per_second: float = 3.0,
        attempts: int = 6,
        timeout: float = 60.0,
    ):
        names = providers.split(",") if isinstance(providers, str) else list(providers)
        self._wanted = [name.strip() for name in names if name.strip()]
        self._path = None if path is None else Path(path)
        if bool(self._wanted) == (self._path is not None):
            raise OptionError(
                "say what to read, either providers=[mp, oqmd] or path=dump.jsonl; the providers "
                f"are listed at {registry}"
            )
        if self._path is not None and not self._path.is_file():
            raise DataError(f"{self._path}: no such file")
        if self._path is not None and filter:
            raise OptionError(f"filter = {filter!r} works for servers, not for the file {path}")
        if page_limit < 1 or (limit is not None and limit < 1):
            raise OptionError(f"page_limit = {page_limit} and limit = {limit} must be 1 or more")
        self._filter = filter
        self._page_limit = page_limit
        self._limit = limit
        self._on_error = on_error
        self._registry = registry.rstrip("/")
        self._method = Method(code=code, xc_functional=xc_functional)
        self._cache, self._refresh = cache, refresh
        self._requests_per_second = requests_per_second
        self._max_attempts, self._timeout = attempts, timeout
        self._own = _own_properties(mapping or {}, units or {})
        self.clock: Clock = SYSTEM_CLOCK
        """What tells the time."""
        self.fraction: float | None = None
        """Part of what was found that was read so far, None where that cannot be known."""
        self.notes: tuple[str, ...] = ()
        """What was left out or failed in the last iteration, one sentence each."""

    @property
    def card(self) -> Card:
        """What the data are."""
        what = self._path.name if self._path else ", ".join(self._wanted)
        targets = (p.target for p in (*self._own, *KNOWN))
        return Card(
            title=f"OPTIMADE: {what}" + (f" [{self._filter}]" if self._filter else ""),
            quantities=tuple(dict.fromkeys(targets)),
            citation="Andersen et al., Sci. Data 8, 217 (2021), and the providers' own",
            url=what if self._path else self._registry,
        )

    def __iter__(self) -> Iterator[Entry]:
        """Yield the structures, provider by provider, in the order of the servers.

        Raises:
            SourceError: a server cannot be reached, refuses the filter, or answers nonsense.
            OptionError: a provider is unknown, or a unit does not fit.
            DataError: the file is damaged.
        """
        left_out = Rejections()
        self.notes, self.fraction = (), 0.0
        try:
            if self._path is not None:
                yield from self._from_file(self._path, left_out)
            else:
                yield from self._from_servers(left_out)
        finally:
            self.notes = (*self.notes, *left_out.lines())

    def _from_file(self, path: Path, left_out: Rejections) -> Iterator[Entry]:
        label = path.name.partition(".")[0]
        facts = Facts(title=f"OPTIMADE dump {label}", prefix="", api_version="")
        properties = self._properties_of(label, facts)
        n_read = 0
        for part, document in iterate_dump(path):
            self.fraction = part
            if document.get("type") == "info" and document.get("id") == "structures":
                units = units_of(section(document.get("properties")))
                properties = self._properties_of(label, replace(facts, units=units))
            if document.get("type") != "structures" or "id" not in document:
                continue
            if self._limit is not None and n_read >= self._limit:
                self.fraction = 1.0
                return
            n_read += 1
            name = f"{label}:{document['id']}"
            origin = Origin(url=path.name, database=facts.title)
            entry = self._entry(document, name, origin, properties, left_out)
            if entry is not None:
                yield entry
        if not n_read:
            raise DataError(
                f"{path}: no OPTIMADE structures in this file (documents with type 'structures', "
                "an id and attributes)"
            )

    def _from_servers(self, left_out: Rejections) -> Iterator[Entry]:
        refresh, self._refresh = self._refresh, False  # the second iteration sees the same answers
        with ExitStack() as stack:
            make = functools.cache(functools.partial(self._client, stack, refresh))
            reached = self._reached(make)
            for number, (server, facts) in enumerate(reached):
                try:
                    client = make(server.base_url)
                    for part, entry in self._from_server(client, server, facts, left_out):
                        self.fraction = None if part is None else (number + part) / len(reached)
                        if entry is not None:
                            yield entry
                except SourceError as error:
                    self._failed(server.name, error)
                self.fraction = (number + 1) / len(reached)

    def _failed(self, name: str, error: SourceError) -> None:
        if self._on_error == "stop" or len(self._wanted) == 1:
            raise SourceError(f"OPTIMADE provider {name}: {error}") from error
        self._note(f"OPTIMADE provider {name} is incomplete or missing: {error}")

    def _reached(self, make: MakeClient) -> list[tuple[Server, Facts]]:
        """Return the servers that answered, with what they say about themselves."""
        servers: list[Server] = []
        facts: list[Facts] = []
        for wanted in self._wanted:
            try:
                for server in find_servers([wanted], registry=self._registry, client=make):
                    facts.append(read_facts(make(server.base_url)))
                    servers.append(server)
            except SourceError as error:
                self._failed(wanted, error)
        if not servers:
            raise SourceError(f"no OPTIMADE provider answered: {'; '.join(self.notes)}")
        return list(zip(distinct(servers, facts), facts, strict=True))

    def _client(self, stack: ExitStack, refresh: bool, address: str) -> Client:
        client = Client(
            address,
            cache=self._cache,
            refresh=refresh,
            requests_per_second=self._requests_per_second,
            max_attempts=self._max_attempts,
            timeout=self._timeout,
            clock=self.clock,
        )
        stack.callback(client.close)
        return client

    def _from_server(
        self, client: Client, server: Server, facts: Facts, left_out: Rejections
    ) -> Iterator[tuple[float | None, Entry | None]]:
        properties = self._properties_of(server.name, facts)
        params = {
            "filter": self._filter or None,
            "response_fields": ",".join(
                _response_fields(properties, facts, own={p.name for p in self._own})
            ),
            "page_limit": min(self._page_limit, self._limit or self._page_limit),
        }

        def fetch(token: str | None) -> Page:
            return self._page(client, params, token, server)

        n_read = 0
        for page in pages(fetch, limit=self._limit, name_of=lambda document: str(document["id"])):
            total = page.total
            if total and self._limit is not None:
                total = min(total, self._limit)
            for document in page.items:
                n_read += 1
                identifier = str(document["id"])  # OQMD sends numbers
                origin = Origin(
                    url=f"{server.base_url}/v1/structures/{identifier}",
                    database=f"{facts.title} (OPTIMADE {facts.api_version})",
                    license=facts.license,
                    retrieved=page.retrieved,
                )
                name = f"{server.name}:{identifier}"
                part = min(n_read / total, 1.0) if total else None
                yield part, self._entry(document, name, origin, properties, left_out)

    def _page(
        self, client: Client, params: Mapping[str, Any], token: str | None, server: Server
    ) -> Page:
        if token:
            answer = client.get(token, check=_check_page)
        else:
            answer = self._first(client, params, server)
        content = answer.json
        meta = section(content.get("meta"))
        warnings = meta.get("warnings")
        for warning in warnings if isinstance(warnings, list) else ():
            self._note(f"OPTIMADE provider {server.name} warns: {_detail(warning)}")
        following = section(content.get("links")).get("next")
        if isinstance(following, dict):
            following = following.get("href")
        if following is not None and not isinstance(following, str):
            raise SourceError(f"{answer.address}: the link to the next page is {following!r}")
        if meta.get("more_data_available") is False:
            following = None
        if following and "://" not in following:
            from urllib.parse import urljoin

            following = urljoin(f"{server.base_url}/v1/structures", following)
        total = meta.get("data_returned")
        return Page(
            items=content["data"],
            next=following or None,
            total=total if isinstance(total, int) and total >= 0 else None,
            retrieved=answer.retrieved,
            address=answer.address,
            forget=answer.forget,
        )

    def _first(self, client: Client, params: Mapping[str, Any], server: Server) -> Answer:
        """Get the first page; if the server allows fewer structures per page, as many as it likes.

        Servers must refuse a page_limit above theirs, and do not say beforehand what it is.
        """
        try:
            return client.get("v1/structures", params, check=_check_page)
        except SourceError as error:
            if "limit" not in str(error).partition("the service answered")[2].lower():
                raise
            self._note(f"OPTIMADE provider {server.name} wants shorter pages, read in its own size")
            return client.get("v1/structures", {**params, "page_limit": None}, check=_check_page)

    def _properties_of(self, name: str, facts: Facts) -> tuple[Property, ...]:
        """Return the fields to read at a place, with the units that it declares.

        Raises:
            OptionError: a field of `mapping` is not there, or its unit does not fit.
        """
        checked: list[Property] = []
        for known in (*self._own, *KNOWN):
            is_own = known in self._own
            units = facts.units
            if units is not None and known.name not in units:
                if is_own and known.name.startswith(f"_{facts.prefix}_"):
                    raise _no_such_field(known, name, units)
                continue
            declared = "" if "." in known.field else (units or {}).get(known.name, "")
            chosen = (known.unit or declared) if is_own else (declared or known.unit)
            unit = chosen or quantity(known.target).unit
            try:
                factor(unit, known.target, n_atoms=1)
            except OptionError as error:
                if is_own:
                    raise OptionError(f"{name}: {known.field}: {error}") from error
                # the provider changed its mind: better no value than a wrong one
                self._note(f"{name}: {known.field} is not read: {error}")
                continue
            checked.append(replace(known, unit=unit))
        return tuple(checked)

    def _note(self, sentence: str) -> None:
        if sentence not in self.notes:
            self.notes = (*self.notes, sentence)

    def _entry(
        self,
        document: Mapping[str, Any],
        name: str,
        origin: Origin,
        properties: tuple[Property, ...],
        left_out: Rejections,
    ) -> Entry | None:
        left_out.n_seen += 1
        attributes = document.get("attributes")
        try:
            if not isinstance(attributes, dict):
                raise EntryError("no attributes")
            atoms = read_atoms(attributes)
            targets, functional = read_targets(attributes, properties, n_atoms=len(atoms.numbers))
        except EntryError as error:
            left_out.add(str(error), name)
            return None
        prefixes = {field.split("_")[1] for field in attributes if field.startswith("_")}
        codes = {_CODES[prefix] for prefix in prefixes & set(_CODES)} if targets else set()
        return Entry(
            numbers=atoms.numbers,
            positions=atoms.positions,
            cell=atoms.cell,
            pbc=atoms.pbc,
            targets=MappingProxyType(targets),
            id=name,
            method=Method(
                code=self._method.code or (codes.pop() if len(codes) == 1 else ""),
                xc_functional=functional or self._method.xc_functional,
            ),
            origin=origin,
            tags=MappingProxyType({"provider": name.rpartition(":")[0]}),
        )


def _own_properties(mapping: Mapping[str, str], units: Mapping[str, str]) -> tuple[Property, ...]:
    if unused := set(units) - set(mapping):
        raise OptionError(
            f"units names {', '.join(sorted(unused))}, which mapping does not; mapping has "
            f"{', '.join(mapping) or 'nothing'}"
        )
    found = []
    for target, field in mapping.items():
        quantity(target)
        if target in units:
            factor(units[target], target, n_atoms=1)
        found.append(Property(field, target, units.get(target, "")))
    return tuple(found)


def _no_such_field(known: Property, name: str, units: Mapping[str, str]) -> OptionError:
    own = sorted(field for field in units if field.startswith("_"))
    close = difflib.get_close_matches(known.name, own, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    listed = ", ".join(own) or "none of its own"
    return OptionError(f"mapping: {name} has no field {known.name!r}, only {listed}.{hint}")


def _response_fields(
    properties: tuple[Property, ...], facts: Facts, *, own: Collection[str]
) -> list[str]:
    """Return the fields to ask for: those that the server describes, or is likely to have."""
    wanted = [*FIELDS, *(p.name for p in properties), *(f.partition(".")[0] for f in FUNCTIONALS)]
    prefix = f"_{facts.prefix}_"
    described = facts.units
    return [
        name
        for name in dict.fromkeys(wanted)
        if (name in described if described is not None else not name.startswith("_"))
        or (described is None and (name in own or name.startswith(prefix)))
    ]


def _check_page(answer: Any) -> None:
    """Refuse an answer that is not a listing of structures.

    Raises:
        SourceError: it has errors, or another form; the message has the server's words.
    """
    if isinstance(answer, dict) and answer.get("errors"):
        errors = answer["errors"]
        said = "; ".join(_detail(e) for e in errors) if isinstance(errors, list) else str(errors)
        raise SourceError(f"the server reports: {said[:300]}")
    if not isinstance(answer, dict) or not isinstance(answer.get("data"), list):
        raise SourceError(
            f"the answer is no list of structures, as OPTIMADE asks for: {str(answer)[:120]}"
        )
    for document in answer["data"]:
        if (
            not isinstance(document, dict)
            or document.get("id") in (None, "")
            or not isinstance(document.get("attributes"), dict)
        ):
            raise SourceError(
                f"a document has no id or no attributes, as OPTIMADE asks for: "
                f"{str(document)[:120]}"
            )


def _detail(error: Any) -> str:
    if not isinstance(error, dict):
        return str(error)
    return str(error.get("detail") or error.get("title") or error)
