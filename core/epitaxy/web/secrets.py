"""Keeps API keys and tokens out of everything that is shown or stored."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

HIDDEN = "***"

_HEADERS = re.compile(
    r"(?i)^(.*[-_])?(apikey|key|token|auth|authorization|password|secret|cookie)([-_].*)?$"
)
_PARAMETERS = frozenset(  # names in full: "page_token" is not a secret, and tells pages apart
    (
        *("api_key", "apikey", "api-key", "x-api-key", "key", "token", "access_token"),
        *("auth_token", "auth", "authorization", "password", "passwd", "secret"),
        *("client_secret", "signature"),
    )
)
_LONGEST = 160  # characters of an address in a message
_SHORTEST = 6  # characters; a shorter value is not a secret, and would blot out ordinary text


def is_secret_header(name: str) -> bool:
    """Whether a header of this name holds a secret."""
    return _HEADERS.match(name) is not None


def is_secret_parameter(name: str) -> bool:
    """Whether a query parameter of this name holds a secret."""
    return name.lower() in _PARAMETERS


def secrets_in(headers: Mapping[str, str]) -> tuple[str, ...]:
    """Return the secret values of headers; of "Bearer abc" also "abc"."""
    found: set[str] = set()
    for name, value in headers.items():
        if is_secret_header(name):
            found |= {value, value.rpartition(" ")[2]}
    return tuple(sorted((s for s in found if len(s) >= _SHORTEST), key=len, reverse=True))


def without_secrets(text: str, secrets: Iterable[str]) -> str:
    """Return the text with every secret replaced by asterisks."""
    for secret in secrets:
        text = text.replace(secret, HIDDEN)
    return text


def safe_url(url: str) -> str:
    """Return the address without user, password and secret query parameters."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    query = parts.query
    pairs = parse_qsl(query, keep_blank_values=True)
    if any(is_secret_parameter(name) for name, _ in pairs):
        # Dropped, not starred: the address still works for somebody with a key of their own.
        query = urlencode([(name, value) for name, value in pairs if not is_secret_parameter(name)])
    return urlunsplit((parts.scheme, host, parts.path, query, parts.fragment))


def shown(address: str) -> str:
    """Return an address short enough for a message: its middle is left out."""
    if len(address) <= _LONGEST:
        return address
    return f"{address[: _LONGEST - 40]}...{address[-37:]}"
