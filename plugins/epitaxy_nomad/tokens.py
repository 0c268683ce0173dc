"""The token that NOMAD knows a user by; it goes into one header and nowhere else."""

from __future__ import annotations

import os
from hashlib import blake2b
from pathlib import Path

from epitaxy.errors import OptionError

VARIABLE = "NOMAD_CLIENT_ACCESS_TOKEN"
"""Name of the variable that NOMAD's own client reads."""

HELP = (
    f"give a token with token_file=FILE (--token-file FILE) or the variable {VARIABLE} (in NOMAD: "
    "your name, Access token), and check that it has not expired"
)


def read_token(
    file: Path | None, *, is_needed: bool, why: str = "these entries are not public"
) -> str:
    """Return the token from a file, else from NOMAD's variable if one is needed; "" if none.

    The variable is not sent where the data are public, so that the token of an Oasis does not
    reach another service.

    Raises:
        OptionError: the file cannot be read or holds no token.
    """
    if file is not None:
        try:
            token = Path(file).expanduser().read_text("utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise OptionError(f"the token file {str(file)!r} cannot be read: {error}") from error
        if not token or any(c.isspace() for c in token) or not token.isascii():
            raise OptionError(f"the token file {str(file)!r} must hold one token and nothing else")
        return token
    token = os.environ.get(VARIABLE, "").strip() if is_needed else ""
    if is_needed and not token:
        raise OptionError(f"{why}: {HELP}")
    return token


def scope(token: str) -> str:
    """Return what tells the answers to one user from those to another; no secret."""
    return blake2b(token.encode(), digest_size=8).hexdigest() if token else ""
