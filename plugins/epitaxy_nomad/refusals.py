"""What NOMAD means when it refuses, and what to do about it.

NOMAD answers 400 to almost everything: only its words tell what may be tried again.
"""

from __future__ import annotations

import re

from epitaxy.errors import PublishError
from epitaxy.web import RefusedError
from epitaxy_nomad.tokens import HELP

_BLOCKED = re.compile(
    r"blocked by another process|currently being processed|still being processed"
    r"|still/already processed",
    re.IGNORECASE,
)
"""What NOMAD 2.0.0 says where another process of the same upload is in the way."""

_CUT = re.compile(r"aborted/disrupted", re.IGNORECASE)

_ADVICE = (
    (
        r"limit of unpublished uploads",
        "publish or delete some of them (`epitaxy nomad list --unpublished`), or ask the "
        "administrator for more (services.upload_limit)",
    ),
    (
        r"already published",
        "a published upload can neither be changed nor deleted",
    ),
    (
        r"without any resulting entries",
        "this NOMAD recognised nothing in it: ask its administrator for the plugin of epitaxy, or "
        "leave out `entry: none`",
    ),
    (r"failed processing", "`epitaxy nomad status` shows the errors; delete it and send it again"),
    (r"dataset name is already taken", "choose another name for the dataset"),
    (
        r"must be on an oasis|published on the oasis first|only admin of oasis",
        "only an administrator can send what is published on an Oasis to the central NOMAD",
    ),
    (r"datacite|doi service", "this NOMAD gives no DOIs; publish there without `doi: true`"),
    (r"aborted/disrupted", "the connection broke while the files were sent; start again"),
)


class NomadRefusalError(PublishError):
    """NOMAD refuses; its words are in the message.

    Attributes:
        status: of the answer.
        said: NOMAD's own words.
    """

    def __init__(self, message: str, *, status: int, said: str):
        super().__init__(message)
        self.status = status
        self.said = said


def is_blocked(error: PublishError) -> bool:
    """Whether another process of the upload is in the way, so that waiting helps."""
    return (
        isinstance(error, NomadRefusalError)
        and error.status == 400
        and _BLOCKED.search(error.said) is not None
    )


def status_of(error: PublishError) -> int:
    """Return the HTTP status of a refusal, 0 of any other error."""
    return error.status if isinstance(error, NomadRefusalError) else 0


def is_cut(error: PublishError) -> bool:
    """Whether NOMAD noticed that the connection broke while it received files."""
    return isinstance(error, NomadRefusalError) and _CUT.search(error.said) is not None


def explained(error: RefusedError, about: str = "") -> NomadRefusalError:
    """Return what a refusal means, and what to do.

    Args:
        error: what the web client made of the answer.
        about: id of what was asked about.
    """
    return NomadRefusalError(_text(error, about), status=error.status, said=error.said)


def _text(error: RefusedError, about: str) -> str:
    said = error.said or "no explanation"
    what = f"{about}: " if about else ""
    for pattern, advice in _ADVICE:
        if re.search(pattern, said, re.IGNORECASE):
            return f"{what}NOMAD refuses ({error.status}: {said}); {advice}"
    if error.status == 401:
        return f"{what}NOMAD does not accept the token (401: {said}); {HELP}"
    if error.status == 403 and "scope" in said.lower():
        return (
            f"{what}the token may not do this (403: {said}); make one with these scopes in NOMAD "
            "(your name, Access token)"
        )
    if error.status == 403:
        return f"{what}NOMAD refuses ({error.status}: {said}); is the token of the right user?"
    if error.status == 404 and said == "Not Found":  # of the web server, not of NOMAD's calls
        return (
            f"{str(error).partition(': the service')[0]}: there is no NOMAD at this address: "
            + ("is the url that of its API, which ends in /api/v1?")
        )
    if error.status == 404:
        return (
            f"{what}NOMAD does not know it (404: {said}); `epitaxy nomad list` lists your uploads"
        )
    if error.status == 422:
        return f"{what}NOMAD does not accept a field (422: {said})"
    return f"{what}NOMAD refuses ({error.status}: {said})"
