"""`epitaxy campaign`: many finished calculations into the uploads of a NOMAD."""

from __future__ import annotations

import sys
import time
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from epitaxy_nomad.campaign.begin import News
    from epitaxy_nomad.campaign.ledger import Ledger
    from epitaxy_nomad.campaign.send import Outcome
    from epitaxy_nomad.service import Service

_INTERVAL = 5.0  # seconds between lines about how far a search is
_MOST_NAMED = 20  # of a kind, unless --all
_REQUESTS_PER_SECOND = 20.0  # of each worker, as NOMAD's own client asks
_UNITS = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION", help="one of")
    plan = _action(actions, "plan", "find what is finished and plan the uploads", _plan)
    plan.add_argument(
        "source",
        type=Path,
        nargs="?",
        help="folder tree, or ASE database (default: that of the campaign in DIR)",
    )
    plan.add_argument(
        "-o", "--output", type=Path, required=True, metavar="DIR", help="folder of the campaign"
    )
    plan.add_argument("--name", default="", help="what the names of the uploads begin with")
    plan.add_argument(
        "--mainfile",
        metavar="REGEX",
        help="names of main outputs, instead of those of the codes that are known",
    )
    plan.add_argument(
        "--finished",
        metavar="REGEX",
        help="what such a file has in its last 64 kB if it ended well (default: believe it)",
    )
    plan.add_argument(
        "--leave-out",
        action="append",
        metavar="PATTERN",
        help="names of files and folders that stay at home, as WAVECAR or '*.tmp'; may be repeated",
    )
    plan.add_argument(
        "--follow-links",
        action="store_true",
        default=None,
        help="pack the files that symbolic links point to (default: leave links out, named)",
    )
    plan.add_argument(
        "--path-key",
        metavar="KEY",
        help="key of a database's rows that holds the folder (default: folder)",
    )
    plan.add_argument(
        "--max-bytes", type=_size, metavar="SIZE", help="of one upload, as 20G (default: 32G)"
    )
    plan.add_argument("--max-files", type=int, metavar="N", help="of one upload (default: 50000)")
    pack = _action(actions, "pack", "write the uploads as zip files, to send them later", _pack)
    _add_folder(pack)
    _add_level(pack)
    send = _action(actions, "send", "send what is not there yet, and count it", _send)
    _add_folder(send)
    _add_service(send, is_needed=True)
    _add_level(send)
    send.add_argument(
        "--workers", type=int, default=2, metavar="N", help="uploads at once (default: 2)"
    )
    send.add_argument("--dataset", default="", help="NOMAD dataset that all entries go into")
    send.add_argument(
        "--publish", action="store_true", help="publish each upload once it is counted; for good"
    )
    send.add_argument(
        "--embargo", type=int, metavar="MONTHS", help="0 to 36, that published data stay hidden"
    )
    send.add_argument(
        "--max-unpublished",
        type=int,
        metavar="N",
        help="unpublished uploads of yours at most (default: as many as the server allows)",
    )
    send.add_argument(
        "--wait",
        type=float,
        default=0.0,
        metavar="SECONDS",
        help="how long to wait for room for one more unpublished upload (default: 0)",
    )
    send.add_argument(
        "--deadline",
        type=float,
        default=3600.0,
        metavar="SECONDS",
        help="for NOMAD's processing of one upload (default: 3600)",
    )
    send.add_argument("--dry-run", action="store_true", help="only say what would be sent")
    status = _action(actions, "status", "say how far each upload is", _status)
    _add_folder(status)
    status.add_argument("--all", action="store_true", help="name all that was left out")
    verify = _action(actions, "verify", "compare disk, ledger and service", _verify)
    _add_folder(verify)
    _add_service(verify, is_needed=False)
    verify.add_argument(
        "--read-all", action="store_true", help="read every file on the disk, not only touched ones"
    )


def run(args: Namespace) -> int:
    """Do it; return 0, or 1 if something is missing, has changed or was refused."""
    do: Callable[[Namespace], int] = args.do
    return do(args)


def _plan(args: Namespace) -> int:
    from epitaxy_nomad.campaign.begin import Recipe, plan

    given = {
        name: getattr(args, name)
        for name in ("mainfile", "finished", "follow_links", "path_key", "max_bytes", "max_files")
        if getattr(args, name) is not None
    }
    if args.leave_out:
        given["leave_out"] = tuple(args.leave_out)
    recipe = Recipe(**given) if given else None
    news = plan(args.output, args.source, recipe=recipe, name=args.name, tell=_progress())
    return _say_news(news, args.output)


def _say_news(news: News, folder: Path) -> int:
    from epitaxy_nomad.campaign.ledger import Ledger

    found = news.found
    print(
        f"{len(found.calculations):,} finished calculations: {found.n_files:,} files, "
        f"{_bytes(found.n_bytes)}"
    )
    for code in sorted({c.code for c in found.calculations}):
        print(f"  {code}: {sum(c.code == code for c in found.calculations):,}")
    _name("left out", [f"{name}: {why}" for name, why in sorted(found.left_out.items())])
    _name(
        "folders without a main output, left out",
        [f"{name}: {n:,} files" for name, n in sorted(found.without_output.items())],
    )
    _name("symbolic links, left out", found.links)
    if found.empty_folders:
        print(f"empty folders, which uploads do not keep: {len(found.empty_folders):,}")
    if news.n_sent:
        print(f"packed or sent before: {news.n_sent:,} calculations")
    _name("changed since they were packed or sent", news.changed)
    ledger = Ledger.open(folder)
    for number in news.new_parts:
        part = ledger.parts[number]
        n_files = sum(c.n_files for c in part.calculations.values())
        n_bytes = sum(c.n_bytes for c in part.calculations.values())
        print(
            f"upload {number}: {len(part.calculations):,} calculations, {n_files:,} files, "
            f"{_bytes(n_bytes)}"
        )
    print(f"{ledger.path}: uploads to begin: {len(news.new_parts):,}")
    return 1 if news.changed else 0


def _pack(args: Namespace) -> int:
    from epitaxy_nomad.campaign.begin import Recipe
    from epitaxy_nomad.campaign.ledger import Ledger
    from epitaxy_nomad.campaign.pack import ChangedError, check_source, write_zip

    n_left_out = 0
    with Ledger.open(args.folder, to_write=True) as ledger:
        rules = Recipe.of(ledger).rules()
        check_source(ledger, [part for part in ledger.parts.values() if not part.has("packed")])
        for part in ledger.parts.values():
            while not part.has("packed") and part.calculations:
                start = time.monotonic()
                try:
                    write_zip(ledger, part, rules, level=args.compression)
                except ChangedError as error:
                    n_left_out += 1
                    ledger.leave_out(part, error.calculation, error.reason)
                    print(f"left out: {error}")
                    continue
                path = ledger.zip_path(part.number)
                seconds = time.monotonic() - start
                print(
                    f"{path}: {part.n_files:,} files, {_bytes(part.n_bytes)} in "
                    f"{_bytes(path.stat().st_size)}, {seconds:.1f} s"
                )
    return 1 if n_left_out else 0


def _send(args: Namespace) -> int:
    from epitaxy_nomad.campaign.begin import Recipe
    from epitaxy_nomad.campaign.ledger import Ledger
    from epitaxy_nomad.campaign.send import Way, send

    way = Way(
        workers=args.workers,
        level=args.compression,
        dataset=args.dataset,
        publish=args.publish,
        embargo_months=args.embargo,
        max_unpublished=args.max_unpublished,
        wait_for_room=args.wait,
        deadline=args.deadline,
    )
    if args.dry_run:
        return _say_todo(Ledger.open(args.folder), args.url)
    with Ledger.open(args.folder, to_write=True) as ledger:
        rules = Recipe.of(ledger).rules()
        connect = _connector(args)
        with connect() as service:
            print(f"{service.host}: {service.whoami().name}")
        outcome = send(ledger, connect, rules, way, tell=lambda text: print(text, flush=True))
        return _say_outcome(ledger, outcome)


def _say_todo(ledger: Ledger, url: str) -> int:
    for part in ledger.parts.values():
        if not part.has("sent"):
            n_files = sum(c.n_files for c in part.calculations.values())
            n_bytes = sum(c.n_bytes for c in part.calculations.values())
            print(
                f"upload {part.number}: would send {len(part.calculations):,} calculations, "
                f"{n_files:,} files, {_bytes(n_bytes)} to {url}"
            )
    return 0


def _say_outcome(ledger: Ledger, outcome: Outcome) -> int:
    sent = [ledger.parts[number] for number in outcome.done]
    print(
        f"{len(sent):,} of {len(ledger.parts):,} uploads are in place: "
        f"{sum(len(p.calculations) for p in sent):,} calculations, "
        f"{sum(p.n_files for p in sent):,} files, {_bytes(sum(p.n_bytes for p in sent))}, "
        "as many as the service lists"
    )
    before, after = outcome.unpublished
    print(f"your unpublished uploads: {before:,} before, {after:,} now")
    _name("left out", [f"{name}: {why}" for name, why in sorted(outcome.left_out.items())])
    _name("failed", [outcome.failed[number] for number in sorted(outcome.failed)])
    if outcome.no_room:
        print(
            f"uploads without room: {len(outcome.no_room):,}; publish or delete some of yours and "
            "start again, or use --publish or --wait"
        )
    return 1 if outcome.failed or outcome.no_room or outcome.left_out else 0


def _status(args: Namespace) -> int:
    from epitaxy_nomad.campaign.ledger import STATES, Ledger

    ledger = Ledger.open(args.folder)
    print(f"campaign {ledger.facts['name']!r} of {ledger.facts['source']}")
    bad = total_files = total_bytes = 0
    for part in ledger.parts.values():
        where = f" as {part.upload_id}" if part.upload_id else ""
        entries = f", {part.n_entries:,} entries" if part.has("processed") else ""
        n_files = part.n_files or sum(c.n_files for c in part.calculations.values())
        n_bytes = part.n_bytes or sum(c.n_bytes for c in part.calculations.values())
        print(
            f"upload {part.number}: {part.state}{where}: {len(part.calculations):,} calculations, "
            f"{n_files:,} files, {_bytes(n_bytes)}{entries}"
        )
        _name("NOMAD's errors", list(part.errors), most=None if args.all else _MOST_NAMED)
        _name("differences", list(part.problems), most=None if args.all else _MOST_NAMED)
        if part.failure:
            print(f"  {part.failure}")
        bad += bool(part.failure or part.problems)
        total_files += n_files
        total_bytes += n_bytes
    states = Counter(part.state for part in ledger.parts.values())
    print(
        f"{sum(len(p.calculations) for p in ledger.parts.values()):,} calculations, "
        f"{total_files:,} files, {_bytes(total_bytes)} in {len(ledger.parts):,} uploads: "
        + (", ".join(f"{states[state]:,} {state}" for state in STATES if states[state]) or "none")
    )
    left_out = [f"{name}: {why}" for name, why in sorted(ledger.left_out.items())]
    _name("left out", left_out, most=None if args.all else _MOST_NAMED)
    return 1 if bad else 0


def _verify(args: Namespace) -> int:
    from epitaxy_nomad.campaign.check import changed_since, count
    from epitaxy_nomad.campaign.ledger import Ledger

    ledger = Ledger.open(args.folder)
    sent = [part for part in ledger.parts.values() if part.has("sent")]
    changed: list[str] = []
    problems: list[str] = []
    for part in sent:
        found = changed_since(ledger, part, read_all=args.read_all)
        changed += [f"{name}: {what}" for name, what in sorted(found.items())]
    if args.url:
        with _connector(args)() as service:
            for part in sent:
                if part.service != service.host:
                    problems.append(f"upload {part.number} is at {part.service}")
                    continue
                listed = count(ledger.read_manifest(part), service.files(part.upload_id))
                print(
                    f"upload {part.number} ({part.upload_id}): sent {listed.n_files:,} files, "
                    f"{listed.n_bytes:,} bytes; listed {listed.n_files_listed:,} files, "
                    f"{listed.n_bytes_listed:,} bytes, {listed.n_others:,} others"
                )
                problems += listed.problems
    _name("changed on the disk since they were sent", changed)
    _name("differences", problems)
    n_calculations = sum(len(part.calculations) for part in sent)
    print(
        f"{n_calculations:,} calculations sent in {len(sent):,} uploads: {len(changed):,} changed "
        f"since, {len(problems):,} differences"
    )
    return 1 if changed or problems else 0


def _connector(args: Namespace) -> Callable[[], Service]:
    from epitaxy_nomad.service import Service
    from epitaxy_nomad.tokens import read_token

    token = read_token(args.token_file, is_needed=True, why="a campaign needs a token")
    return lambda: Service(args.url, token, requests_per_second=_REQUESTS_PER_SECOND)


def _action(
    actions: object, name: str, summary: str, do: Callable[[Namespace], int]
) -> ArgumentParser:
    parser: ArgumentParser = actions.add_parser(  # type: ignore[attr-defined]
        name, help=summary, description=f"{summary[:1].upper()}{summary[1:]}."
    )
    parser.set_defaults(do=do)
    return parser


def _add_folder(parser: ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, metavar="DIR", help="folder of the campaign")


def _add_service(parser: ArgumentParser, *, is_needed: bool) -> None:
    parser.add_argument(
        "--url",
        required=is_needed,
        help="address of the NOMAD's API, as https://oasis.example.org/nomad-oasis/api/v1",
    )
    parser.add_argument(
        "--token-file",
        type=Path,
        metavar="FILE",
        help="file with your token (default: the variable NOMAD_CLIENT_ACCESS_TOKEN)",
    )


def _add_level(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--compression",
        type=int,
        default=1,
        metavar="LEVEL",
        help="0 (none) to 9 (smallest) (default: 1)",
    )


def _size(text: str) -> int:
    number, unit = text.strip().lower().removesuffix("ib").removesuffix("b"), ""
    if number and number[-1] in _UNITS:
        number, unit = number[:-1], number[-1]
    try:
        return int(float(number) * _UNITS[unit])
    except ValueError:
        raise ArgumentTypeError(f"{text!r} is no size; write 500M, 32G or a number") from None


def _bytes(n: int) -> str:
    for unit, name in ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if n >= unit:
            return f"{n / unit:.1f} {name}"
    return f"{n:,} bytes"


def _name(what: str, items: list[str], *, most: int | None = _MOST_NAMED) -> None:
    if not items:
        return
    print(f"{what}: {len(items):,}")
    for item in items[:most]:
        print(f"  {item}")
    if most is not None and len(items) > most:
        print(f"  ... and {len(items) - most:,} more; `epitaxy campaign status DIR --all`")


def _progress() -> Callable[[int], None]:
    last = time.monotonic()

    def tell(n: int) -> None:
        nonlocal last
        if time.monotonic() - last >= _INTERVAL:
            last = time.monotonic()
            print(f"{n:,} calculations so far", file=sys.stderr, flush=True)

    return tell
