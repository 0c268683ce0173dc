"""`epitaxy nomad`: look after what is in NOMAD: status, list, wait, download, delete."""

from __future__ import annotations

import json
import sys
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from epitaxy.errors import EpitaxyError, OptionError

if TYPE_CHECKING:
    from epitaxy.protocols import Receipt
    from epitaxy_nomad.records import Upload, UploadEntry
    from epitaxy_nomad.service import Service

_SHOWN = 20  # entries in full
REQUESTS_PER_SECOND = 20.0  # as NOMAD's own client; a download has one or more per file


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    actions = parser.add_subparsers(
        dest="action", required=True, metavar="ACTION", help="what to do"
    )
    which = "id of an upload, or the folder of an artifact or dataset that was published"
    status = actions.add_parser("status", help="state, entries and errors of an upload")
    status.add_argument("upload", help=which)
    listing = actions.add_parser("list", help="your uploads, the newest first")
    published = listing.add_mutually_exclusive_group()
    published.add_argument("--unpublished", action="store_true", help="only what can be changed")
    published.add_argument("--published", action="store_true", help="only what is final")
    listing.add_argument("--ours", action="store_true", help="only what epitaxy has published")
    wait = actions.add_parser("wait", help="wait until NOMAD has processed an upload")
    wait.add_argument("upload", help=which)
    wait.add_argument(
        "--timeout",
        type=_seconds,
        default=3600.0,
        metavar="S",
        help="seconds to wait at most (default: 3600)",
    )
    download = actions.add_parser("download", help="get an artifact or a dataset back, proven")
    download.add_argument("upload", help=f"{which}, or the id of an entry")
    download.add_argument(
        "-o", "--output", type=Path, required=True, metavar="DIR", help="folder to make"
    )
    delete = actions.add_parser("delete", help="delete an upload that is not published")
    delete.add_argument("upload", help=which)
    delete.add_argument("--yes", action="store_true", help="do not ask")
    for action in (status, listing, wait, download, delete):
        action.add_argument(
            "--url",
            help='address of the API, ".../api/v1" (default: where the folder was published, else '
            "the public NOMAD)",
        )
        action.add_argument(
            "--token-file",
            type=Path,
            metavar="FILE",
            help="file with a token (default: the variable NOMAD_CLIENT_ACCESS_TOKEN)",
        )
    for action in (status, listing):
        action.add_argument("--json", action="store_true", help="as JSON")


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise ArgumentTypeError(f"{text!r} is not a number") from None
    if not value > 0:
        raise ArgumentTypeError(f"{text} given, more than 0 needed")
    return value


def run(args: Namespace) -> int:
    """Do it; return 1 if NOMAD could not process the upload, or entries of it."""
    actions = {
        "status": _status,
        "list": _list,
        "wait": _wait,
        "download": _download,
        "delete": _delete,
    }
    receipt = _receipt(Path(args.upload), args.url or "") if args.action != "list" else None
    if receipt is not None:
        args.upload = receipt.identifier
        args.url = args.url or _address(receipt)
    with _service(args) as service:
        return actions[args.action](service, args)


def _receipt(path: Path, url: str) -> Receipt | None:
    """Return the last receipt of NOMAD (of the one at `url`) in a folder, None if it is none."""
    from epitaxy.receipts import read_receipts
    from epitaxy.web.secrets import safe_url
    from epitaxy_nomad.publication import PUBLISHER

    if not path.is_dir():
        return None
    receipts = [
        receipt
        for receipt in read_receipts(path)
        if receipt.publisher == PUBLISHER
        and (not url or (receipt.facts or {}).get("api") == url.rstrip("/"))
    ]
    if not receipts:
        raise OptionError(
            f"{path} was not published from here: there is no receipt of NOMAD"
            f"{f' at {safe_url(url)}' if url else ''} in it; give the id of the upload "
            "(`epitaxy nomad list --ours`)"
        )
    return receipts[-1]


def _address(receipt: Receipt) -> str | None:
    """Return the NOMAD that a receipt names, and say where the token is about to go."""
    from epitaxy.web.secrets import safe_url

    address = (receipt.facts or {}).get("api")
    if address is None:
        return None
    print(f"asking {safe_url(str(address))}, which the receipt names", file=sys.stderr)
    return str(address)


def _service(args: Namespace, *, anonymous: bool | None = None) -> Service:
    from epitaxy_nomad.service import Service
    from epitaxy_nomad.source import PUBLIC
    from epitaxy_nomad.tokens import read_token

    if anonymous is None:
        anonymous = args.action == "download"  # published data need no token
    why = f"`epitaxy nomad {args.action}` needs a token"
    token = read_token(args.token_file, is_needed=not anonymous, why=why)
    return Service(args.url or PUBLIC, token, requests_per_second=REQUESTS_PER_SECOND)


def _status(service: Service, args: Namespace) -> int:
    upload = service.get(args.upload)
    entries = list(service.entries(args.upload))
    if args.json:
        facts = {**asdict(upload), "entries": [asdict(entry) for entry in entries]}
        print(json.dumps(facts, indent=1, ensure_ascii=False))
    else:
        _print(upload, entries)
    return int(_has_failed(upload, entries))


def _has_failed(upload: Upload, entries: Iterable[UploadEntry]) -> bool:
    return "FAILURE" in (upload.status, *(entry.status for entry in entries))


def _print(upload: Upload, entries: Iterable[UploadEntry]) -> None:
    print(f"{upload.upload_id}: {upload.name or '(no name)'}")
    running = ", running" if upload.is_running else ""
    print(f"status: {upload.status}{running} {f'({upload.message})' if upload.message else ''}")
    hidden = f", hidden for {upload.embargo_months} months" if upload.embargo_months else ""
    print(f"published: {f'yes{hidden}' if upload.is_published else 'no'}")
    for place in upload.published_to:
        print(f"published to: {place}")
    for text in upload.errors:
        print(f"error: {text}")
    for text in upload.warnings:
        print(f"warning: {text}")
    n_more = 0
    for number, entry in enumerate(entries):
        if number >= _SHOWN and not entry.errors:
            n_more += 1
            continue
        print(f"entry {entry.entry_id}: {entry.status}, {entry.mainfile} ({entry.parser})")
        for text in entry.errors:
            print(f"  error: {text}")
        for text in entry.warnings:
            print(f"  warning: {text}")
    if n_more:
        print(f"and {n_more:,} more entries without errors")


def _list(service: Service, args: Namespace) -> int:
    from epitaxy_nomad.packing import folder_in

    wanted = True if args.published else False if args.unpublished else None
    found = service.uploads(published=wanted)
    uploads = [upload for upload in found if not args.ours or folder_in(upload.name)]
    if args.json:
        print(json.dumps([asdict(upload) for upload in uploads], indent=1, ensure_ascii=False))
        return 0
    for upload in uploads:
        state = "published" if upload.is_published else upload.status
        entries = f"{upload.n_entries:,} entries"
        print(f"{upload.upload_id}  {upload.created[:10]}  {state:9}  {entries:>12}  {upload.name}")
    n_open = sum(not upload.is_published for upload in uploads)
    print(f"{len(uploads):,} uploads, {n_open:,} of them unpublished")
    return 0


def _wait(service: Service, args: Namespace) -> int:
    said = ""

    def tell(upload: Upload) -> None:
        nonlocal said
        line = f"{upload.status}: {upload.message or upload.process}".strip(": ")
        if upload.is_running and line != said:
            said = line
            print(line, file=sys.stderr, flush=True)

    upload = service.wait(args.upload, deadline=args.timeout, tell=tell)
    entries = list(service.entries(args.upload))
    _print(upload, entries)
    return int(_has_failed(upload, entries))


def _download(service: Service, args: Namespace) -> int:
    from epitaxy_nomad.download import download
    from epitaxy_nomad.refusals import NomadRefusalError

    def tell(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    try:
        found = download(service, args.upload, args.output, tell=tell)
    except NomadRefusalError as error:
        if error.status not in (401, 403) or args.token_file:
            raise
        with _service(args, anonymous=False) as known:  # not public: now the token is needed
            found = download(known, args.upload, args.output, tell=tell)
    proof = f", {found.kind} {found.digest[:12]}, every file as it was published"
    print(
        f"{found.path}: {found.n_files} files, {found.n_bytes:,} bytes"
        f"{proof if found.digest else ', nothing to compare them with'}"
    )
    return 0


def _delete(service: Service, args: Namespace) -> int:
    upload = service.get(args.upload)
    if not args.yes:
        print(
            f"delete upload {upload.upload_id}: {upload.name or '(no name)'}, {upload.n_entries:,} "
            "entries? [y/N] ",
            end="",
            flush=True,
        )
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            raise EpitaxyError("nothing was deleted")
    service.delete(args.upload)
    print(f"deleted {args.upload}")
    return 0
