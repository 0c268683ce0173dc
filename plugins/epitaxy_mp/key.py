"""The user's key for the Materials Project, from the places where its own programs look."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from epitaxy.errors import SourceError

OFFICIAL = "https://api.materialsproject.org"
GET_ONE = (
    "get a key at https://next-gen.materialsproject.org/api and put it into the variable "
    "MP_API_KEY, into ~/.config/.pmgrc.yaml as 'PMG_MAPI_KEY: ...', or into a file of its own "
    "(option key_file=FILE)"
)
_LENGTH = 32  # characters of a key of the current API; those of the old one have 16


def find_key(key_file: Path | None = None) -> str:
    """Return the key, "" if there is none.

    A key is no option, because options are written into the history of a dataset. The variables
    are an exception to "no environment variables as options": they are the provider's own
    standard (mp-api reads MP_API_KEY, pymatgen PMG_MAPI_KEY and the two files), so that who uses
    mp-api needs to do nothing here.

    Raises:
        SourceError: the file does not exist or holds no key.
    """
    if key_file is not None:
        path = Path(key_file).expanduser()
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise SourceError(f"key_file {path} cannot be read: {error}") from error
        key = str(_settings(text).get("PMG_MAPI_KEY", "")) if ":" in text else text.strip()
        return _checked(key, f"key_file {path}")
    for name in ("MP_API_KEY", "PMG_MAPI_KEY"):
        if os.environ.get(name):
            return _checked(os.environ[name].strip(), f"the variable {name}")
    for path in (Path.home() / ".config" / ".pmgrc.yaml", Path.home() / ".pmgrc.yaml"):
        try:
            key = str(_settings(path.read_text(encoding="utf-8")).get("PMG_MAPI_KEY", ""))
        except (OSError, UnicodeDecodeError):
            continue
        if key:
            return _checked(key, str(path))
    return ""


def _settings(text: str) -> dict[str, Any]:
    import yaml

    try:
        found = yaml.safe_load(text)
    except yaml.YAMLError:  # its message would show the text, and with it the key
        return {}
    return found if isinstance(found, dict) else {}


def _checked(key: str, where: str) -> str:
    if len(key) != _LENGTH or not key.isalnum():
        raise SourceError(
            f"{where} holds no key of the Materials Project: {len(key)} characters, "
            f"{_LENGTH} letters and digits are expected"
            + (" (a key of the old API does not work any more)" if len(key) < _LENGTH else "")
            + f"; {GET_ONE}"
        )
    return key
