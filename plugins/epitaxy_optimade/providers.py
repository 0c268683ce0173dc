"""Which servers a provider's name stands for: the list of providers and their index databases.

The list at https://providers.optimade.org names the providers; each has an index meta-database
whose links of type "child" are its servers (OPTIMADE specification 1.2, "Links endpoint").
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from epitaxy.errors import OptionError, SourceError

if TYPE_CHECKING:
    from epitaxy.web import Client

REGISTRY = "https://providers.optimade.org"
"""Address of the list of providers."""

_VERSIONS = ("/v1", "/v1/structures", "/structures")
MakeClient = Callable[[str], "Client"]


@dataclass(frozen=True, slots=True)
class Server:
    """One OPTIMADE server.

    Attributes:
        name: what entries are named after, for example "mp" or "alexandria/pbe".
        base_url: without the version.
    """

    name: str
    base_url: str


@dataclass(frozen=True, slots=True)
class Facts:
    """What a server says about itself.

    Attributes:
        title: name of the database.
        prefix: of the provider's own fields.
        api_version: of the standard.
        license: SPDX name or address; "" where it says none.
        units: property of structures -> unit, "" where it says none; None if the server does not
            describe its properties.
    """

    title: str
    prefix: str
    api_version: str
    license: str = ""
    units: Mapping[str, str] | None = field(default=None, hash=False)


def find_servers(wanted: Sequence[str], *, registry: str, client: MakeClient) -> list[Server]:
    """Return the servers that names and addresses stand for, in the order given.

    Args:
        wanted: "mp", "alexandria" (all its servers), "alexandria/alexandria-pbe" (one of them),
            an address, or "name=address".
        registry: address of the list of providers; asked only for names.
        client: makes the client of an address.

    Raises:
        OptionError: a name is not in the list; the message suggests the nearest.
        SourceError: the list or an index cannot be read.
    """
    known: dict[str, str] | None = None
    found: list[Server] = []
    for text in wanted:
        name, equals, address = text.partition("=")
        if equals and "://" in address and "://" not in name:
            found.append(Server(name.strip(), plain(address.strip())))
        elif "://" in text:
            found.append(Server("", plain(text.strip())))
        else:
            if known is None:
                known = _providers(client(registry))
            found += _children(text.strip(), known, client)
    return found


def plain(address: str) -> str:
    """Return an address without version and endpoint."""
    address = address.rstrip("/")
    for ending in sorted(_VERSIONS, key=len, reverse=True):
        if address.endswith(ending):
            return address[: -len(ending)]
    return address


def read_facts(client: Client) -> Facts:
    """Return what a server says about itself; refuse another version of the standard.

    Raises:
        SourceError: it is no OPTIMADE server of version 1, or cannot be reached.
    """
    answer = client.get("v1/info", check=_is_answer).json
    meta = section(answer.get("meta"))
    attributes = section(section(answer.get("data")).get("attributes"))
    version = str(attributes.get("api_version") or meta.get("api_version") or "")
    if version.removeprefix("v").partition(".")[0] != "1":
        raise SourceError(
            f"{client.base_url}: this server speaks version {version or 'unknown'} of OPTIMADE; "
            "version 1 is understood. Is it the right address?"
        )
    provider = section(meta.get("provider"))
    implementation = section(meta.get("implementation"))
    names = attributes.get("available_licenses_for_entries") or attributes.get("available_licenses")
    license_ = attributes.get("license")
    if isinstance(license_, dict):
        license_ = license_.get("href")
    return Facts(
        title=str(provider.get("name") or implementation.get("title") or client.base_url),
        prefix=str(provider.get("prefix") or ""),
        api_version=version,
        license=str(names[0] if isinstance(names, list) and names else license_ or ""),
        units=_read_units(client),
    )


def distinct(servers: Sequence[Server], facts: Sequence[Facts]) -> list[Server]:
    """Name servers that were given by their address: by prefix, and by host if that repeats.

    Raises:
        OptionError: a server or a name is given twice.
    """
    for given in ([s.base_url for s in servers], [s.name for s in servers if s.name]):
        if repeated := sorted({text for text in given if given.count(text) > 1}):
            raise OptionError(f"providers: {', '.join(repeated)} is given twice")
    names = [s.name or f.prefix or _host(s) for s, f in zip(servers, facts, strict=True)]
    for i, server in enumerate(servers):
        if not server.name and names.count(names[i]) > 1:
            names[i] = f"{names[i]}/{_host(server)}"
    return [Server(name, s.base_url) for name, s in zip(names, servers, strict=True)]


def _host(server: Server) -> str:
    parts = urlsplit(server.base_url)
    return f"{parts.netloc}{parts.path}".rstrip("/")


def _providers(client: Client) -> dict[str, str]:
    """Return name -> address of the index, "" for providers without one."""
    listed = client.get("v1/links", check=_is_listing).json["data"]
    return {
        str(link["id"]): _address(link)
        for link in listed
        if section(link.get("attributes")).get("link_type", "external") in ("external", "child")
    }


def _children(text: str, known: Mapping[str, str], client: MakeClient) -> list[Server]:
    name, slash, child = text.partition("/")
    if name not in known:
        close = difflib.get_close_matches(name.lower(), known, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        with_servers = ", ".join(sorted(n for n, address in known.items() if address))
        raise OptionError(
            f"no OPTIMADE provider is called {name!r}.{hint} Known: {with_servers}. "
            "An address works, too: providers=[https://host/path]"
        )
    if not known[name]:
        raise OptionError(f"the OPTIMADE provider {name!r} has no server at present")
    listed = client(known[name]).get("v1/links", check=_is_listing).json["data"]
    children = {
        str(link["id"]): link
        for link in listed
        if section(link.get("attributes")).get("link_type") == "child" and _address(link)
    }
    if slash:
        if child not in children:
            close = difflib.get_close_matches(child, children, n=1)
            hint = f" Did you mean {name}/{close[0]}?" if close else ""
            raise OptionError(
                f"{name!r} has no server {child!r}, only {', '.join(children) or 'none'}.{hint}"
            )
        return [Server(text, plain(_address(children[child])))]
    open_ = {
        key: link
        for key, link in children.items()
        if (section(link["attributes"]).get("aggregate") or "ok") == "ok"
    }
    if not open_:
        raise SourceError(
            f"the OPTIMADE provider {name!r} lists no server for general use, only "
            f"{', '.join(children) or 'none'}; name one as {name}/..."
        )
    return [
        Server(name if len(open_) == 1 else f"{name}/{key}", plain(_address(link)))
        for key, link in open_.items()
    ]


def section(value: Any) -> Mapping[str, Any]:
    """Return a JSON object, an empty one if it is something else."""
    return value if isinstance(value, dict) else {}


def _address(link: Mapping[str, Any]) -> str:
    base = section(link.get("attributes")).get("base_url")
    if isinstance(base, dict):
        base = base.get("href")
    return str(base or "").rstrip("/")


def _read_units(client: Client) -> dict[str, str] | None:
    """Return property -> unit from /info/structures, None if the server has no such page."""
    try:
        described = client.get("v1/info/structures", check=_is_answer).json["data"]
    except SourceError:
        return None
    properties = section(described.get("properties"))
    return units_of(properties) if properties else None


def units_of(described: Mapping[str, Any]) -> dict[str, str]:
    """Return property -> unit ("" where it says none) from descriptions of properties."""
    return {
        str(name): str((rule or {}).get("unit") or (rule or {}).get("x-optimade-unit") or "")
        for name, rule in described.items()
        if isinstance(rule, dict) or rule is None
    }


def _is_answer(answer: Any) -> None:
    if not isinstance(answer, dict) or not isinstance(answer.get("data"), dict):
        raise SourceError(f"this is no answer of an OPTIMADE server: {str(answer)[:120]}")


def _is_listing(answer: Any) -> None:
    if not isinstance(answer, dict) or not isinstance(answer.get("data"), list):
        raise SourceError(f"this is no list of OPTIMADE links: {str(answer)[:120]}")
    for link in answer["data"]:
        if not isinstance(link, dict) or "id" not in link:
            raise SourceError(f"this is no OPTIMADE link: {str(link)[:120]}")
