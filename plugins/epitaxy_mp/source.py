"""Entries from the Materials Project: its API, or its documents in local files."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, Literal

from epitaxy.entry import Entry, Method
from epitaxy.errors import EntryError, OptionError, SourceError
from epitaxy.protocols import Card
from epitaxy.quantities import quantity
from epitaxy.web import SYSTEM_CLOCK, Client, Clock, LeftOut, Page, pages
from epitaxy_mp.documents import Documents
from epitaxy_mp.entries import QUANTITIES, read_document
from epitaxy_mp.key import GET_ONE, OFFICIAL, find_key
from epitaxy_mp.levels import functional
from epitaxy_mp.query import ENDPOINTS, IDS_PER_REQUEST, LARGEST_PAGE, check_answer, parameters

_LARGEST_CORRECTION = 5.0  # eV/atom; more is another level of theory: r2SCAN of Ac is -68.6 eV


class MaterialsProjectSource:
    """Reads the Materials Project over its API, or from its documents in local files.

    The key is taken from `key_file`, the variable MP_API_KEY, or pymatgen's settings file. The
    level of theory goes into the method of each entry ("PBE", "PBE+U", "r2SCAN"); the total
    energy is the calculated one unless corrections are asked for.

    Args:
        path: file of documents to read instead (.json or .jsonl, .gz, .xz, .bz2): a dump, saved
            answers, task documents, ComputedStructureEntry lists. Filters do not apply to it.
        endpoint: summary (materials), thermo (energies per level of theory), tasks (calculations
            with forces and stress, where the service has them) or elasticity.
        chemical_system: such as "Li-Fe-O"; "*-O" for any oxide of two elements; several with
            commas.
        formula: such as "Fe2O3", "ABO3", "Si*"; several with commas.
        material_ids: ids; task ids for the endpoint tasks.
        elements: elements that must all be there.
        exclude_elements: elements that must not be there.
        band_gap: lowest and highest, eV.
        energy_above_hull: lowest and highest, eV/atom.
        formation_energy: lowest and highest, eV/atom.
        bulk_modulus: lowest and highest Voigt-Reuss-Hill average, GPa (endpoint elasticity).
        shear_modulus: lowest and highest Voigt-Reuss-Hill average, GPa (endpoint elasticity).
        n_sites: fewest and most atoms.
        n_elements: fewest and most elements.
        spacegroup: number of the space group, 1 to 230.
        is_stable: whether on the convex hull.
        thermo_type: mixing schemes of the endpoint thermo: "GGA_GGA+U", "R2SCAN",
            "GGA_GGA+U_R2SCAN"; with several, ids end with the scheme.
        license: BY-C for everything under CC-BY-4.0, BY-NC for what is not for commercial use
            (GNoME), All for both.
        energy: "uncorrected" as calculated, or "corrected" with the project's corrections.
        targets: quantities to keep; all that are there by default.
        levels: for the endpoint summary, ask the thermo documents for the level of theory of each
            material.
        key_file: file with the key, or with "PMG_MAPI_KEY: key".
        url: address of the API.
        page_size: documents per request, at most 1000.
        limit: largest number of documents.
        cache: folder of kept answers; "none" for none, the user's cache folder by default.
        refresh: ask anew for everything.
        attempts: how often a request is tried.
        timeout: seconds that one attempt may take.
        requests_per_second: highest rate of requests.
    """

    def __init__(
        self,
        *,
        path: Path | None = None,
        endpoint: Literal["summary", "thermo", "tasks", "elasticity"] = "summary",
        chemical_system: str = "",
        formula: str = "",
        material_ids: tuple[str, ...] = (),
        elements: tuple[str, ...] = (),
        exclude_elements: tuple[str, ...] = (),
        band_gap: tuple[float, float] | None = None,
        energy_above_hull: tuple[float, float] | None = None,
        formation_energy: tuple[float, float] | None = None,
        bulk_modulus: tuple[float, float] | None = None,
        shear_modulus: tuple[float, float] | None = None,
        n_sites: tuple[int, int] | None = None,
        n_elements: tuple[int, int] | None = None,
        spacegroup: int | None = None,
        is_stable: bool | None = None,
        thermo_type: tuple[str, ...] = (),
        license: Literal["BY-C", "BY-NC", "All"] = "BY-C",
        energy: Literal["uncorrected", "corrected"] = "uncorrected",
        targets: tuple[str, ...] = (),
        levels: bool = True,
        key_file: Path | None = None,
        url: str = OFFICIAL,
        page_size: int = 500,
        limit: int | None = None,
        cache: str = "",
        refresh: bool = False,
        attempts: int = 6,
        timeout: float = 60.0,
        requests_per_second: float = 5.0,
    ):
        for name in targets:
            if quantity(name).name not in QUANTITIES:
                raise OptionError(f"no {name} here; targets may be {', '.join(QUANTITIES)}")
        if not 1 <= page_size <= LARGEST_PAGE:
            raise OptionError(f"page_size = {page_size}; 1 to {LARGEST_PAGE} are possible")
        if limit is not None and limit < 1:
            raise OptionError(f"limit = {limit}; 1 or more, or leave it out for all")
        self._endpoint = ENDPOINTS[endpoint]
        if endpoint == "thermo" and not thermo_type:
            thermo_type = ("GGA_GGA+U_R2SCAN",)
        filters = {
            "chemical_system": chemical_system,
            "formula": formula,
            "material_ids": material_ids,
            "elements": elements,
            "exclude_elements": exclude_elements,
            "band_gap": band_gap,
            "energy_above_hull": energy_above_hull,
            "formation_energy": formation_energy,
            "bulk_modulus": bulk_modulus,
            "shear_modulus": shear_modulus,
            "n_sites": n_sites,
            "n_elements": n_elements,
            "spacegroup": spacegroup,
            "is_stable": is_stable,
            "thermo_type": thermo_type,
            "license": license if license != "BY-C" else None,
        }
        self._query = parameters(endpoint, filters)
        self._ids = material_ids
        self._documents = None if path is None else Documents(Path(path))
        self._several = len(thermo_type) > 1
        self._energy: Literal["uncorrected", "corrected"] = energy
        self._targets = frozenset(targets)
        self._levels = levels and endpoint == "summary"
        self._url = url.rstrip("/")
        self._page_size = page_size
        self._limit = limit
        self._client_options: dict[str, Any] = {
            "cache": cache or None,
            "refresh": refresh,
            "max_attempts": attempts,
            "timeout": timeout,
            "requests_per_second": requests_per_second,
        }
        self._key_file = key_file
        self.clock: Clock = SYSTEM_CLOCK
        """What tells the time; tests hand in their own."""
        self.fraction: float | None = None
        """Part that was read so far, None where that is not known."""
        self.notes: tuple[str, ...] = ()
        """What was left out, and why."""

    @property
    def card(self) -> Card:
        """What the data are."""
        return Card(
            title="Materials Project",
            quantities=QUANTITIES,
            license="CC-BY-4.0",
            citation="Jain et al., APL Materials 1, 011002 (2013); Horton et al., Nature Materials "
            "24, 1522 (2025)",
            url="https://materialsproject.org",
        )

    def __iter__(self) -> Iterator[Entry]:
        """Yield the entries in the order of the service, or of the file.

        Raises:
            SourceError: the service refuses, or answers nonsense.
            DataError: a file is damaged.
        """
        left_out = LeftOut("document", "documents")
        self.fraction, self.notes = 0.0, ()
        n_mixed = 0
        try:
            for facts in self._network() if self._documents is None else self._file():
                document, options = facts
                n_mixed += _is_shifted(document)
                try:
                    yield self._kept(read_document(document, energy=self._energy, **options))
                except EntryError as error:
                    name, _, reason = str(error).partition(": ")
                    reason = reason.partition(":")[0]
                    left_out.add(name, reason)
        finally:
            self.notes = left_out.notes()
            if n_mixed:
                self.notes += (
                    f"{n_mixed:,} documents have energies of PBE shifted to r2SCAN or the other "
                    f"way, by more than {_LARGEST_CORRECTION:g} eV/atom: take the formation "
                    "energy, or one level of theory with endpoint=thermo and thermo_type=[R2SCAN] "
                    "or [GGA_GGA+U]",
                )

    def _kept(self, entry: Entry) -> Entry:
        if not self._targets:
            return entry
        from dataclasses import replace
        from types import MappingProxyType

        kept = {name: value for name, value in entry.targets.items() if name in self._targets}
        return replace(entry, targets=MappingProxyType(kept))

    def _file(self) -> Iterator[tuple[Mapping[str, Any], dict[str, Any]]]:
        assert self._documents is not None
        for n, document in enumerate(self._documents):
            if self._limit is not None and n >= self._limit:
                break
            yield document, {}
            self.fraction = self._documents.fraction
        self.fraction = 1.0

    def _network(self) -> Iterator[tuple[Mapping[str, Any], dict[str, Any]]]:
        key = find_key(self._key_file)
        if not key and self._url == OFFICIAL:
            raise SourceError(f"the Materials Project wants a key of yours: {GET_ONE}")
        headers = {"X-API-KEY": key} if key else {}
        client = Client(
            self._url, headers=headers, key_help=GET_ONE, clock=self.clock, **self._client_options
        )
        with closing(client):
            client.scope = self._version(client)
            database = f"Materials Project {client.scope}".strip()
            batches = [
                self._ids[i : i + IDS_PER_REQUEST]
                for i in range(0, len(self._ids), IDS_PER_REQUEST)
            ] or [()]
            n_before = 0
            for i, batch in enumerate(batches):
                limit = None if self._limit is None else self._limit - n_before
                n_in_batch = 0
                for page in self._pages(client, batch, limit):
                    levels = self._levels_of(client, page) if self._levels else {}
                    for n, document in enumerate(page.items, start=1):
                        yield (
                            document,
                            {
                                "database": database,
                                "retrieved": page.retrieved,
                                "level": levels.get(document[self._endpoint.key]),
                                "thermo_in_id": self._several,
                            },
                        )
                        total = min(page.total or 0, math.inf if limit is None else limit)
                        part = (n_in_batch + n) / total if total else 1.0
                        self.fraction = (i + min(1.0, part)) / len(batches)
                    n_in_batch += len(page.items)
                n_before += n_in_batch
                if self._limit is not None and n_before >= self._limit:
                    break
            if not n_before:
                asked = {**self._query, **({"ids": list(self._ids)} if self._ids else {})}
                raise SourceError(f"{self._url}: no document matches {asked or 'the query'}")
            self.fraction = 1.0

    def _version(self, client: Client) -> str:
        """Return the version of the database: pages of two versions must not be mixed."""

        def check(answer: Any) -> None:
            if not isinstance(answer, Mapping):
                raise SourceError(f"the heartbeat is {type(answer).__name__}, not an object")

        try:
            answer = client.get("heartbeat", check=check, newest=True).json
        except SourceError as error:
            if "answered 404" in str(error):  # a mirror without one
                return ""
            raise
        return str(answer.get("db_version") or "")

    def _pages(self, client: Client, ids: tuple[str, ...], limit: int | None) -> Iterator[Page]:
        rule = self._endpoint
        query = {"_fields": ",".join(rule.fields), **self._query}
        if ids:
            query[rule.ids] = ",".join(ids)
        if rule.sort:
            query["_sort_fields"] = rule.sort
        size = self._page_size if limit is None else min(self._page_size, limit)

        def fetch(skip: Any) -> Page:
            answer = client.get(
                rule.path,
                {**query, "_limit": size, "_skip": skip},
                check=lambda found: check_answer(found, rule.key),
            )
            documents, total = answer.json["data"], answer.json["meta"]["total_doc"]
            after = skip + len(documents)
            return Page(
                items=documents,
                next=after if documents and after < total else None,
                total=total,
                retrieved=answer.retrieved,
                address=answer.address,
                forget=answer.forget,
            )

        def name_of(document: Any) -> str:
            thermo = document.get("thermo_type", "") if self._several else ""
            return f"{document[rule.key]} {thermo}".rstrip()

        return pages(fetch, first=0, limit=limit, name_of=name_of)

    def _levels_of(self, client: Client, page: Page) -> dict[str, Method]:
        """Return the level of theory of each material of a summary page, where it is certain."""
        rule = ENDPOINTS["thermo"]
        energies = {
            document[rule.key]: document.get("uncorrected_energy_per_atom")
            for document in page.items
        }
        names = [name for name, energy in energies.items() if energy is not None]
        levels: dict[str, Method] = {}
        for start in range(0, len(names), IDS_PER_REQUEST):
            batch = names[start : start + IDS_PER_REQUEST]
            answer = client.get_json(
                rule.path,
                {
                    "_fields": "material_id,energy_type,thermo_type,uncorrected_energy_per_atom",
                    "material_ids": ",".join(batch),
                    "thermo_types": "GGA_GGA+U_R2SCAN,GGA_GGA+U,R2SCAN,r2SCAN",
                    "_limit": LARGEST_PAGE,
                    "_skip": 0,
                    **{k: v for k, v in self._query.items() if k == "license"},
                },
                check=lambda found: check_answer(found, rule.key),
            )
            for document in answer["data"]:
                name, run_type = document[rule.key], document.get("energy_type")
                energy, wanted = document.get("uncorrected_energy_per_atom"), energies.get(name)
                # The same calculation: the energies agree to every digit that is stored.
                if not run_type or energy is None or wanted is None:
                    continue
                if math.isclose(energy, wanted, abs_tol=1e-8):
                    note = "corrected energy" if self._energy == "corrected" else ""
                    levels[name] = Method("VASP", functional(str(run_type)), note)
        return levels


def _is_shifted(document: Mapping[str, Any]) -> bool:
    """Whether the mixing scheme has moved an energy to the scale of another functional."""
    plain = document.get("uncorrected_energy_per_atom")
    corrected = document.get("energy_per_atom")
    return (
        isinstance(plain, float)
        and isinstance(corrected, float)
        and abs(corrected - plain) > _LARGEST_CORRECTION
    )
