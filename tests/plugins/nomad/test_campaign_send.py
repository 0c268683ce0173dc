"""Sending a campaign to a service that behaves as NOMAD does, and going on after a crash."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import StreamRequestHandler
from typing import Any

import loopback
import pytest
from calculations import calculation, output, put
from loopback import FakeClock, Loopback, Request
from nomad_uploads import PREFIX, TOKEN, Checked, NomadUploads

from epitaxy.cli import main
from epitaxy.errors import OptionError, PublishError
from epitaxy_nomad.campaign.begin import Recipe, plan
from epitaxy_nomad.campaign.ledger import Ledger
from epitaxy_nomad.campaign.send import Outcome, Way, send
from epitaxy_nomad.service import Service

COMMAND = (sys.executable, "-m", "epitaxy", "campaign", "send")
N_FILES = 5  # of a calculation


class Nomad(NomadUploads):
    """Has a parser for VASP; `arrived` is set when files have come."""

    def __init__(self) -> None:
        super().__init__()
        self.arrived = threading.Event()

    def _put(self, request: Request, upload_id: str, folder: str) -> dict[str, Any]:
        answer = super()._put(request, upload_id, folder)
        self.arrived.set()
        return answer

    def _parser(self, name: str) -> str:
        return "parsers/vasp" if name.endswith("/OUTCAR") else super()._parser(name)

    @property
    def all_files(self) -> dict[str, bytes]:
        """Every file of every upload."""
        return {name: file for held in self.uploads.values() for name, file in held.files.items()}


@pytest.fixture
def nomad(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Nomad, Loopback]]:
    # Without it each small answer waits 40 ms for an acknowledgement of its header.
    monkeypatch.setattr(StreamRequestHandler, "disable_nagle_algorithm", True)
    service = Nomad()
    service.n_polls = 1
    with Checked(service) as checked, Loopback(checked) as server:
        yield service, server


def campaign(tmp_path: Path, n: int = 6, *, per_upload: int = 2) -> Path:
    for i in range(n):
        calculation(tmp_path / "tree" / f"deep{i % 2}" / f"c{i}", n_files=N_FILES, seed=i)
    recipe = Recipe(max_files=per_upload * N_FILES)
    plan(tmp_path / "camp", tmp_path / "tree", recipe=recipe)
    return tmp_path / "camp"


def on_disk(tmp_path: Path) -> dict[str, bytes]:
    tree = tmp_path / "tree"
    return {
        path.relative_to(tree).as_posix(): path.read_bytes()
        for path in tree.rglob("*")
        if path.is_file()
    }


def sent(folder: Path, server: Loopback, way: Way | None = None) -> Outcome:
    def connect() -> Service:
        return Service(server.url + PREFIX, TOKEN, requests_per_second=0, attempts=2, seed=0)

    with Ledger.open(folder, to_write=True) as ledger:
        rules = Recipe.of(ledger).rules()
        return send(ledger, connect, rules, way or Way(poll=0.01))


def test_every_calculation_arrives_once_and_is_counted(
    tmp_path: Path, nomad: tuple[Nomad, Loopback]
) -> None:
    service, server = nomad
    folder = campaign(tmp_path)
    outcome = sent(folder, server)
    assert outcome.done == [1, 2, 3]
    assert (outcome.failed, outcome.no_room, outcome.left_out) == ({}, [], {})
    assert outcome.unpublished == (0, 3)
    assert service.all_files == on_disk(tmp_path)
    assert service.n_bodies == 3
    ledger = Ledger.open(folder)
    assert {part.state for part in ledger.parts.values()} == {"counted"}
    assert sum(part.n_files for part in ledger.parts.values()) == len(on_disk(tmp_path))
    assert sum(part.n_bytes for part in ledger.parts.values()) == sum(
        map(len, on_disk(tmp_path).values())
    )
    for part in ledger.parts.values():  # a calculation is never split
        held = service.uploads[part.upload_id]
        places = Counter(name.split("/")[1] for name in held.files)
        assert set(places.values()) == {N_FILES}
        assert len(held.entries) == part.n_entries == len(part.calculations)


def test_more_calculations_than_a_page_lists_are_all_counted(
    tmp_path: Path, nomad: tuple[Nomad, Loopback]
) -> None:
    _, server = nomad
    for i in range(120):
        (tmp_path / "tree" / f"c{i}").mkdir(parents=True)
        put(tmp_path / "tree" / f"c{i}" / "OUTCAR", output("OUTCAR", filler=i))
    plan(tmp_path / "camp", tmp_path / "tree")
    assert sent(tmp_path / "camp", server).done == [1]
    (part,) = Ledger.open(tmp_path / "camp").parts.values()
    assert (part.n_files, part.n_entries, part.problems) == (120, 120, ())


def test_a_second_call_sends_nothing(tmp_path: Path, nomad: tuple[Nomad, Loopback]) -> None:
    service, server = nomad
    folder = campaign(tmp_path)
    sent(folder, server)
    n_requests = server.n_requests
    assert sent(folder, server).done == [1, 2, 3]
    assert service.n_bodies == 3
    assert server.n_requests == n_requests + 2  # how many unpublished uploads there are


@pytest.mark.parametrize(
    "fault", ["refused", *(pytest.param(f, marks=pytest.mark.slow) for f in ("dropped", "500"))]
)
def test_a_connection_that_breaks_at_any_request_is_mended(
    tmp_path: Path, nomad: tuple[Nomad, Loopback], fault: str
) -> None:
    service, server = nomad
    folder = campaign(tmp_path, n=2)
    way = Way(workers=1, poll=0.01)
    at = 1
    while True:
        before = server.n_requests
        server.fail(fault, at=before + at)
        outcome = sent_patiently(folder, server, way)
        if server.n_requests < before + at:
            break
        assert service.all_files == on_disk(tmp_path)
        assert len(service.uploads) == 1
        assert outcome.done == [1], f"request {at}"
        at += 1
        server.heal()
        service.uploads.clear()
        shutil.rmtree(folder)
        plan(folder, tmp_path / "tree")
    assert at > 6


def test_a_connection_that_breaks_in_mid_file_is_tried_again(
    tmp_path: Path, nomad: tuple[Nomad, Loopback]
) -> None:
    service, server = nomad
    folder = campaign(tmp_path, n=2)
    put(tmp_path / "tree/deep0/c0/large.gz", os.urandom(3_000_000))
    plan(folder)
    way = Way(workers=1, poll=0.01)
    sent_patiently(folder, server, way)
    at_put = next(i for i, request in enumerate(server.requests, 1) if request.method == "PUT")
    shutil.rmtree(folder)
    service.uploads.clear()
    plan(folder, tmp_path / "tree")
    server.fail("cut", at=server.n_requests + at_put)
    assert sent_patiently(folder, server, way).done == [1]
    assert service.all_files == on_disk(tmp_path)


def sent_patiently(folder: Path, server: Loopback, way: Way) -> Outcome:
    """Send; what fails as a whole (the first question to the service) is started again."""

    def connect() -> Service:
        clock = FakeClock().clock()
        return Service(
            server.url + PREFIX, TOKEN, requests_per_second=0, attempts=3, seed=0, clock=clock
        )

    with Ledger.open(folder, to_write=True) as ledger:
        return send(ledger, connect, Recipe.of(ledger).rules(), way)


def test_a_limit_of_unpublished_uploads_stops_and_later_goes_on(
    tmp_path: Path, nomad: tuple[Nomad, Loopback], capsys: pytest.CaptureFixture[str]
) -> None:
    service, server = nomad
    service.limit = 2
    folder = campaign(tmp_path)
    token = put(tmp_path / "token", TOKEN.encode())
    command = ["campaign", "send", str(folder), "--url", server.url + PREFIX]
    command += ["--token-file", str(token)]
    assert main(command) == 1
    said = capsys.readouterr().out
    assert "2 of 3 uploads are in place" in said
    assert "uploads without room: 1; publish or delete some of yours" in said
    next(iter(service.uploads.values())).published = True
    assert main(command) == 0
    assert service.all_files == on_disk(tmp_path)
    assert service.n_bodies == 3
    assert TOKEN not in capsys.readouterr().out + (folder / "ledger.jsonl").read_text()


def test_publishing_makes_room_for_the_next(tmp_path: Path, nomad: tuple[Nomad, Loopback]) -> None:
    service, server = nomad
    service.limit = 1
    folder = campaign(tmp_path)
    way = Way(publish=True, embargo_months=3, dataset="all of them", workers=3, poll=0.01)
    outcome = sent(folder, server, way)
    assert outcome.done == [1, 2, 3]
    assert outcome.unpublished == (0, 0)
    assert all(u.published and u.embargo == 3 for u in service.uploads.values())
    (dataset_id,) = service.datasets
    assert all(e["datasets"] == [dataset_id] for u in service.uploads.values() for e in u.entries)
    assert {part.state for part in Ledger.open(folder).parts.values()} == {"published"}


def test_our_own_limit_counts_the_uploads_of_others_too(
    tmp_path: Path, nomad: tuple[Nomad, Loopback]
) -> None:
    _, server = nomad
    with Service(server.url + PREFIX, TOKEN, requests_per_second=0) as connection:
        connection.create("something else")
    outcome = sent(campaign(tmp_path), server, Way(max_unpublished=2, workers=1, poll=0.01))
    assert (outcome.done, outcome.no_room) == ([1], [2, 3])


def test_a_processing_that_failed_is_named_and_tried_once_more(
    tmp_path: Path, nomad: tuple[Nomad, Loopback]
) -> None:
    service, server = nomad
    service.fail_processing = "the disk is full"
    folder = campaign(tmp_path, n=2)
    outcome = sent(folder, server)
    assert "the disk is full" in outcome.failed[1]
    assert "the disk is full" in Ledger.open(folder).parts[1].failure
    assert sent(folder, server).done == [1]
    assert Ledger.open(folder).parts[1].failure == ""
    assert service.n_bodies == 1


def test_errors_of_entries_are_in_the_ledger(
    tmp_path: Path, nomad: tuple[Nomad, Loopback], capsys: pytest.CaptureFixture[str]
) -> None:
    service, server = nomad
    service.fail_entries = "cannot read the lattice"
    folder = campaign(tmp_path, n=2)
    assert sent(folder, server).done == [1]
    assert main(["campaign", "status", str(folder)]) == 0
    said = capsys.readouterr().out
    assert "NOMAD's errors: 2" in said
    assert "deep0/c0/OUTCAR: cannot read the lattice" in said
    assert "2 calculations, 10 files, " in said
    assert "in 1 uploads: 1 counted" in said


def test_files_that_the_service_lost_are_named_and_sent_again(
    tmp_path: Path, nomad: tuple[Nomad, Loopback]
) -> None:
    service, server = nomad
    folder = campaign(tmp_path, n=2)
    lost = "deep0/c0/charge/file-01.dat"

    unpack = service._unpack
    service._unpack = lambda held, files: unpack(  # type: ignore[method-assign]
        held, {**{k: v for k, v in files.items() if k != lost}, "deep1/c1/OUTCAR": b"short"}
    )
    outcome = sent(folder, server)
    assert f"{lost}: missing in the upload" in outcome.failed[1]
    assert "deep1/c1/OUTCAR: 5 bytes in the upload" in outcome.failed[1]
    assert "has 9 of 10 files" in outcome.failed[1]
    service._unpack = unpack  # type: ignore[method-assign]
    assert sent(folder, server).done == [1]
    assert service.all_files == on_disk(tmp_path)


def test_a_calculation_that_changed_is_left_out_and_named(
    tmp_path: Path, nomad: tuple[Nomad, Loopback]
) -> None:
    service, server = nomad
    folder = campaign(tmp_path, n=2)
    put(tmp_path / "tree/deep1/c1/OUTCAR", output("OUTCAR", filler=2))
    outcome = sent(folder, server)
    assert "has changed since it was planned" in outcome.left_out["deep1/c1"]
    assert {name.split("/")[1] for name in service.all_files} == {"c0"}
    assert plan(folder).new_parts == [2]
    assert sent(folder, server).done == [1, 2]
    assert service.all_files == on_disk(tmp_path)


def test_an_upload_of_which_all_has_changed_is_taken_back(
    tmp_path: Path, nomad: tuple[Nomad, Loopback], capsys: pytest.CaptureFixture[str]
) -> None:
    service, server = nomad
    folder = campaign(tmp_path, n=2, per_upload=1)
    put(tmp_path / "tree/deep1/c1/OUTCAR", output("OUTCAR", filler=2))
    outcome = sent(folder, server)
    assert list(outcome.left_out) == ["deep1/c1"]
    assert outcome.done == [1]
    assert not outcome.failed
    assert len(service.uploads) == 1
    assert main(["campaign", "status", str(folder)]) == 0
    assert plan(folder).new_parts == [3]
    assert sent(folder, server).done == [1, 3]
    assert service.all_files == on_disk(tmp_path)


def test_a_calculation_that_changed_after_it_was_sent_is_named(
    tmp_path: Path, nomad: tuple[Nomad, Loopback], capsys: pytest.CaptureFixture[str]
) -> None:
    _, server = nomad
    folder = campaign(tmp_path, n=4)
    sent(folder, server)
    tree = tmp_path / "tree"
    os.utime(tree / "deep0/c0/OUTCAR")  # touched, not changed
    edited = tree / "deep1/c1/OUTCAR"
    edited.write_bytes(edited.read_bytes().replace(b"step", b"STEP"))
    (tree / "deep0/c2/charge/file-01.dat").unlink()
    assert main(["campaign", "verify", str(folder)]) == 1
    said = capsys.readouterr().out
    assert "deep1/c1: OUTCAR was edited since it was sent" in said
    assert "deep0/c2: charge/file-01.dat was removed since it was sent" in said
    assert "4 calculations sent in 2 uploads: 2 changed since" in said


def test_verify_counts_on_both_sides(
    tmp_path: Path,
    nomad: tuple[Nomad, Loopback],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    service, server = nomad
    folder = campaign(tmp_path, n=2)
    sent(folder, server)
    (held,) = service.uploads.values()
    held.files["left by a parser.json"] = b"{}"
    monkeypatch.setenv("NOMAD_CLIENT_ACCESS_TOKEN", TOKEN)
    command = ["campaign", "verify", str(folder), "--url", server.url + PREFIX]
    assert main(command) == 0
    assert "sent 10 files" in (said := capsys.readouterr().out)
    assert "listed 10 files" in said
    assert "1 others" in said
    del held.files["deep0/c0/OUTCAR"]
    assert main(command) == 1
    assert "deep0/c0/OUTCAR: missing in the upload" in capsys.readouterr().out


def test_what_was_packed_is_sent_without_its_source(
    tmp_path: Path, nomad: tuple[Nomad, Loopback]
) -> None:
    service, server = nomad
    folder = campaign(tmp_path)
    expected = on_disk(tmp_path)
    assert main(["campaign", "pack", str(folder), "--compression", "6"]) == 0
    shutil.rmtree(tmp_path / "tree")
    elsewhere = folder.rename(tmp_path / "on another machine")
    assert sent(elsewhere, server).done == [1, 2, 3]
    assert service.all_files == expected


def test_a_zip_file_that_was_edited_is_not_sent(
    tmp_path: Path, nomad: tuple[Nomad, Loopback]
) -> None:
    service, server = nomad
    folder = campaign(tmp_path, n=2)
    main(["campaign", "pack", str(folder)])
    with (folder / "part-0001.zip").open("ab") as file:
        file.write(b"x")
    assert "was edited" in sent(folder, server).failed[1]
    assert service.n_bodies == 0


def test_an_upload_that_somebody_deleted_is_named(
    tmp_path: Path, nomad: tuple[Nomad, Loopback]
) -> None:
    service, server = nomad
    folder = campaign(tmp_path, n=4)
    service.fail_processing = "x"
    sent(folder, server)
    number, upload_id = next(
        (n, part.upload_id) for n, part in Ledger.open(folder).parts.items() if part.failure
    )
    del service.uploads[upload_id]
    outcome = sent(folder, server)
    assert f"{upload_id} is gone" in outcome.failed[number]
    assert len(outcome.done) == 1


def test_a_campaign_goes_to_one_service(tmp_path: Path, nomad: tuple[Nomad, Loopback]) -> None:
    service, server = nomad
    folder = campaign(tmp_path, n=2)
    service.fail_processing = "x"
    sent(folder, server)
    with Loopback(service) as other:
        assert "a campaign goes to one service" in sent(folder, other).failed[1]


def test_a_wrong_token_stops_before_anything_is_sent(
    tmp_path: Path, nomad: tuple[Nomad, Loopback]
) -> None:
    _, server = nomad
    with (
        Ledger.open(campaign(tmp_path), to_write=True) as ledger,
        pytest.raises(PublishError, match="does not accept the token"),
    ):
        send(
            ledger, lambda: Service(server.url + PREFIX, "wrong"), Recipe.of(ledger).rules(), Way()
        )


@pytest.mark.parametrize(
    "options",
    [
        {"workers": 0},
        {"max_unpublished": -1},
        {"max_unpublished": 0},
        {"level": 10},
        {"wait_for_room": -1.0},
        {"deadline": float("nan")},
        {"publish": True, "embargo_months": 40},
        {"embargo_months": 3},
    ],
)
def test_a_way_that_makes_no_sense_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(OptionError):
        Way(**options)


def test_nothing_is_begun_where_the_calculations_are_not(
    tmp_path: Path, nomad: tuple[Nomad, Loopback]
) -> None:
    service, server = nomad
    folder = campaign(tmp_path)
    (tmp_path / "tree").rename(tmp_path / "elsewhere")
    with pytest.raises(OptionError, match="is not here: mount it"):
        sent(folder, server)
    assert not service.uploads
    (tmp_path / "elsewhere").rename(tmp_path / "tree")
    assert len(sent(folder, server).done) == 3


def test_a_dry_run_opens_no_socket(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = campaign(tmp_path)
    url = "http://127.0.0.1:9/api/v1"
    assert main(["campaign", "send", str(folder), "--url", url, "--dry-run"]) == 0
    assert "upload 3: would send 2 calculations, 10 files" in capsys.readouterr().out


# --- a process that is killed ---


class Sender:
    """`epitaxy campaign send` in a process of its own."""

    def __init__(self, folder: Path, server: Loopback):
        self.process = subprocess.Popen(
            [*COMMAND, folder, "--url", server.url + PREFIX],
            env=os.environ | {"NOMAD_CLIENT_ACCESS_TOKEN": TOKEN},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def kill(self) -> None:
        """End it at once, as a crash does."""
        self.process.send_signal(signal.SIGKILL)
        self.process.communicate()

    def finish(self) -> None:
        """Wait until it has done its work."""
        said, _ = self.process.communicate()
        assert self.process.returncode == 0, said


def all_is_there(service: Nomad, folder: Path, tmp_path: Path) -> None:
    assert service.all_files == on_disk(tmp_path)
    ledger = Ledger.open(folder)
    assert sorted(service.uploads) == sorted(p.upload_id for p in ledger.parts.values())
    n_files = sum(len(held.files) for held in service.uploads.values())
    assert n_files == len(on_disk(tmp_path))  # none in two uploads
    assert {part.state for part in ledger.parts.values()} == {"counted"}


@pytest.mark.parametrize("step", [4, pytest.param(1, marks=pytest.mark.slow)])
def test_a_sender_that_is_killed_again_and_again_sends_nothing_twice(
    tmp_path: Path, nomad: tuple[Nomad, Loopback], step: int
) -> None:
    """Each run is killed some requests later than the one before, its request done, unanswered."""
    service, server = nomad
    folder = campaign(tmp_path, n=4)
    n_killed = 0
    for wait_for in range(2, 60, step):
        server.holding.clear()
        server.hold(server.n_requests + wait_for)
        sender = Sender(folder, server)
        while not server.holding.wait(0.05) and sender.process.poll() is None:
            pass
        has_ended = sender.process.poll() is not None
        sender.kill()
        if has_ended:
            break
        n_killed += 1
        server.heal()
    assert n_killed >= 2
    server.heal()
    Sender(folder, server).finish()
    all_is_there(service, folder, tmp_path)


def test_ctrl_c_ends_a_sender_that_waits_for_the_service(
    tmp_path: Path, nomad: tuple[Nomad, Loopback]
) -> None:
    service, server = nomad
    service.never_done = True
    folder = campaign(tmp_path, n=2)
    sender = Sender(folder, server)
    assert service.arrived.wait(60)
    sender.process.send_signal(signal.SIGINT)
    said, _ = sender.process.communicate()
    assert sender.process.returncode == 130, said
    service.never_done = False
    Sender(folder, server).finish()
    assert service.n_bodies == 1


def test_a_sender_that_is_killed_in_mid_file_sends_it_again_whole(
    tmp_path: Path, nomad: tuple[Nomad, Loopback], monkeypatch: pytest.MonkeyPatch
) -> None:
    service, server = nomad
    folder = campaign(tmp_path, n=4)
    put(tmp_path / "tree/deep0/c0/large.gz", os.urandom(9_000_000))
    plan(folder)
    arriving, whole = threading.Event(), loopback._body

    def slow(http: BaseHTTPRequestHandler) -> bytes:
        if http.command == "PUT":
            http.rfile.read(100_000)
            arriving.set()
        return whole(http)

    monkeypatch.setattr(loopback, "_body", slow)
    sender = Sender(folder, server)
    assert arriving.wait(60)
    sender.kill()
    monkeypatch.setattr(loopback, "_body", whole)
    n_before = service.n_bodies
    Sender(folder, server).finish()
    assert n_before < service.n_bodies
    all_is_there(service, folder, tmp_path)
