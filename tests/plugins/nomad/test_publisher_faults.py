"""What goes wrong between a publisher and NOMAD, and that it ends well or says what to do."""

import json
import logging
import subprocess
import sys
import traceback
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from loopback import FakeClock, Loopback, Reply
from nomad_uploads import PREFIX, TOKEN, Checked, Held, NomadUploads

from epitaxy.errors import EpitaxyError, OptionError, PublishError, SourceError
from epitaxy.receipts import content_digest
from epitaxy.testing.publisher_checks import make_artifact
from epitaxy_nomad.download import download
from epitaxy_nomad.publisher import NomadPublisher
from epitaxy_nomad.service import Service
from epitaxy_nomad.tokens import VARIABLE


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    return make_artifact(tmp_path / "model")


@pytest.fixture(autouse=True)
def token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, TOKEN)


@pytest.fixture
def nomad() -> NomadUploads:
    return NomadUploads()


@pytest.fixture
def server(nomad: NomadUploads) -> Iterator[Loopback]:
    with Checked(nomad) as checked, Loopback(checked) as server:
        yield server


def make(server: Loopback, **options: object) -> NomadPublisher:
    given = {"requests_per_second": 0, "attempts": 3, **options}
    publisher = NomadPublisher(url=server.url + PREFIX, **given)  # type: ignore[arg-type]
    publisher.clock = FakeClock().clock()
    return publisher


def order_of(server: Loopback, path: Path, method: str, ending: str = "") -> int:
    """Return the number of the request of this kind when `path` is published the first time."""
    nomad = NomadUploads()
    with Loopback(nomad) as rehearsal:
        make(rehearsal).publish(path)
        for number, request in enumerate(rehearsal.requests, start=1):
            if request.method == method and request.path.endswith(ending):
                return number
    raise AssertionError(f"no {method} {ending}")


def n_puts(server: Loopback) -> int:
    return sum(request.method == "PUT" for request in server.requests)


def the(nomad: NomadUploads) -> Held:
    (upload,) = nomad.uploads.values()
    return upload


# --- the token ---


@pytest.mark.parametrize("wrong", ["expired.token.of-a-user", "another-secret"])
def test_a_token_that_is_not_accepted_is_explained_and_not_shown(
    artifact, server, monkeypatch, caplog, wrong
):
    monkeypatch.setenv(VARIABLE, wrong)
    with caplog.at_level(logging.DEBUG), pytest.raises(PublishError) as caught:
        make(server).publish(artifact)
    said = "".join(traceback.format_exception(caught.value))
    assert "does not accept the token" in str(caught.value)
    assert "check that it has not expired" in str(caught.value)
    assert VARIABLE in str(caught.value)
    assert wrong not in said + caplog.text
    assert server.n_requests == 1


def test_a_token_file_that_is_no_token_is_refused(artifact, tmp_path):
    (tmp_path / "token").write_text("two words")
    with pytest.raises(OptionError, match="must hold one token"):
        NomadPublisher(token_file=tmp_path / "token").publish(artifact)


@pytest.mark.parametrize(
    "wrong", ["first-half\nsecond-half", "first-half-of-ünïcode"], ids=["line break", "no ASCII"]
)
def test_a_token_that_no_header_can_hold_is_refused_and_not_shown(
    artifact, nomad, monkeypatch, caplog, wrong
):
    monkeypatch.setenv(VARIABLE, wrong)
    with Loopback(nomad) as server, caplog.at_level(logging.DEBUG):
        with pytest.raises(OptionError) as caught:
            make(server).publish(artifact)
        assert server.n_requests == 0
    said = "".join(traceback.format_exception(caught.value))
    assert VARIABLE in str(caught.value)
    assert "half" not in said + caplog.text


def test_a_token_that_may_not_write_is_explained(artifact, nomad, server):
    nomad.scopes = {"uploads:read"}
    with pytest.raises(
        PublishError, match=r"the token may not do this \(403: Missing scopes: uploads"
    ):
        make(server).publish(artifact)
    assert not nomad.uploads


def test_a_service_that_repeats_the_token_does_not_bring_it_into_a_receipt(artifact, tmp_path):
    nomad = NomadUploads()
    nomad.fail_entries = f"Traceback: header was Bearer {TOKEN}"
    with Loopback(nomad) as server:
        receipt = make(server).publish(artifact)
    assert TOKEN not in json.dumps(dict(receipt.facts))
    assert "***" in receipt.facts["errors"][0]


# --- metadata ---


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"coauthors": ["nobody"]}, r"metadata\.coauthors: User reference not found: `nobody`"),
        ({"references": ["ftp:x"]}, r"metadata\.references: Not a valid URL"),
    ],
)
def test_a_field_that_nomad_refuses_is_named_before_files_are_sent(
    artifact, nomad, server, options, said
):
    with pytest.raises(PublishError, match=said):
        make(server, **options).publish(artifact)
    assert n_puts(server) == 0
    assert not nomad.uploads  # the empty upload was taken away again


# --- limits and other processes ---


def test_the_limit_of_uploads_is_never_tried_twice(artifact, nomad, server):
    nomad.limit = 2
    for name in ("a", "b"):
        nomad.uploads[name] = Held(name, name)
    with pytest.raises(PublishError, match=r"you have 2 unpublished uploads: .*publish or delete"):
        make(server).publish(artifact)
    posts = [r for r in server.requests if r.method == "POST"]
    assert len(posts) == 1
    assert n_puts(server) == 0


def test_an_upload_that_is_blocked_is_tried_again(artifact, nomad, server):
    make(server).publish(artifact)
    upload, inner = the(nomad), nomad._edit

    def busy_once(request, upload_id):
        nomad._edit = inner
        upload.polls_left = 4  # somebody else began something just now
        return inner(request, upload_id)

    nomad._edit = busy_once
    make(server, publish=True).publish(artifact)
    assert upload.published
    refused = [json.loads(reply.body)["detail"] for reply in server.replies if reply.status == 400]
    assert refused == [f"Upload {upload.upload_id} is blocked by another process"]


def test_a_process_that_never_ends_meets_the_deadline(artifact, nomad, server):
    nomad.never_done = True
    publisher = make(server, deadline=60.0)
    with pytest.raises(PublishError, match=r"still works on it after 60 s .*epitaxy nomad wait"):
        publisher.publish(artifact)
    n_polls = sum(r.path.endswith(the(nomad).upload_id) for r in server.requests)
    assert n_polls < 20  # it asks less and less often
    nomad.never_done = False
    assert make(server).publish(artifact).facts["status"] == "SUCCESS"
    assert n_puts(server) == 1


def test_a_service_that_is_silent_is_given_up(artifact, server):
    server.fail("slow", at=2, times=None)
    with pytest.raises(SourceError, match=r"sent only a part of its answer within 0\.2 s"):
        make(server, timeout=0.2, attempts=2).publish(artifact)


# --- processing ---


def test_the_errors_of_a_failed_processing_are_read_back(artifact, nomad, server):
    nomad.fail_processing = "mainfile epitaxy/manifest.json: out of memory"
    with pytest.raises(PublishError, match=r"could not process it: mainfile .*out of memory") as e:
        make(server, publish=True).publish(artifact)
    assert not the(nomad).published
    assert e.value.receipt.facts["status"] == "FAILURE"
    assert e.value.receipt.facts["errors"] == ["mainfile epitaxy/manifest.json: out of memory"]
    assert f"epitaxy nomad delete {the(nomad).upload_id}" in str(e.value)


def test_the_next_call_lets_nomad_process_it_again(artifact, nomad, server):
    nomad.fail_processing = "the worker was killed"
    with pytest.raises(PublishError, match="the worker was killed"):
        make(server).publish(artifact)
    receipt = make(server, publish=True).publish(artifact)
    assert receipt.facts["status"] == "SUCCESS"
    assert (n_puts(server), the(nomad).published) == (1, True)


def test_what_a_parser_could_not_read_is_shown_and_not_published(artifact, nomad, server):
    nomad.fail_entries = "KeyError: 'spec'"
    receipt = make(server).publish(artifact)
    assert receipt.facts["errors"] == ["KeyError: 'spec'"]
    with pytest.raises(PublishError, match=r"not published, .* 1 of 1 entries failed .*KeyError"):
        make(server, publish=True).publish(artifact)
    assert not the(nomad).published


# --- the connection ---


def test_a_connection_cut_while_files_are_sent_is_tried_again(artifact, nomad, server):
    server.fail("cut", at=order_of(server, artifact, "PUT"))
    receipt = make(server).publish(artifact)
    assert receipt.facts["status"] == "SUCCESS"
    assert (n_puts(server), nomad.n_bodies, len(nomad.uploads)) == (2, 1, 1)


def test_the_next_call_goes_on_after_a_connection_that_stayed_away(artifact, nomad, server):
    number = order_of(server, artifact, "PUT")
    server.fail("cut", at=number)
    server.fail("refused", at=number + 1, times=None)
    with pytest.raises(SourceError):
        make(server).publish(artifact)
    server.heal()
    receipt = make(server).publish(artifact)
    assert receipt.facts["status"] == "SUCCESS"
    assert receipt.identifier == the(nomad).upload_id
    assert receipt.facts["found_earlier"] is True


def test_files_that_arrived_are_not_sent_again_if_only_the_answer_was_lost(artifact, nomad, server):
    server.fail("refused", at=order_of(server, artifact, "PUT"))
    receipt = make(server).publish(artifact)
    assert receipt.facts["status"] == "SUCCESS"
    assert (n_puts(server), nomad.n_bodies) == (1, 1)


def test_an_upload_whose_answer_was_lost_is_not_made_twice(artifact, nomad, server):
    server.fail("refused", at=order_of(server, artifact, "POST", "/uploads"))
    make(server).publish(artifact)
    assert len(nomad.uploads) == 1


@pytest.mark.parametrize("fault", ["500", "refused", "429"])
def test_a_publication_whose_answer_was_lost_is_not_an_error(artifact, nomad, server, fault):
    make(server).publish(artifact)
    ahead = NomadUploads()
    with Loopback(ahead) as rehearsal:
        make(rehearsal).publish(artifact)
        before = rehearsal.n_requests
        make(rehearsal, publish=True).publish(artifact)
        paths = [r.path for r in rehearsal.requests[before:]]
    number = next(i for i, path in enumerate(paths, start=1) if path.endswith("/action/publish"))
    server.fail(fault, at=server.n_requests + number)
    receipt = make(server, publish=True).publish(artifact)
    assert receipt.facts["published"] is True


@pytest.mark.parametrize("fault", ["500", "refused", "dropped", "html"])
def test_no_single_fault_on_the_way_does_harm(tmp_path, fault):
    """Break each request of a publication in turn: the files are there once, published."""
    artifact = make_artifact(tmp_path / "model")
    with Loopback(NomadUploads()) as rehearsal:
        make(rehearsal, publish=True, dataset="d").publish(artifact)
        n = rehearsal.n_requests
    for at in range(1, n + 1):
        nomad = NomadUploads()
        with Loopback(nomad) as server:
            server.fail(fault, at=at)
            try:
                make(server, publish=True, dataset="d").publish(artifact)
            except EpitaxyError:  # then the next call finishes it
                make(server, publish=True, dataset="d").publish(artifact)
        upload = the(nomad)
        assert upload.published, at
        assert upload.entries[0]["datasets"] == ["dataset-0"], at
        assert len(nomad.datasets) == 1, at
        assert f"epitaxy-{content_digest(artifact)[:12]}" in upload.name
        assert nomad.n_bodies == 1, at


def test_a_server_that_answers_html_is_no_nomad(artifact):
    page = Reply(b"<html>log in</html>", 200, {"Content-Type": "text/html"})
    said = r"sent no JSON, of type text/html, but '<html>"
    with Loopback(lambda request: page) as server, pytest.raises(SourceError, match=said):
        make(server).publish(artifact)


NONSENSE = [-1, 10**400, True, "x", [None], {"a": 1}, 1.5, "\x00", "\ud800"]


@pytest.mark.parametrize(
    ("ending", "where"),
    [
        ("/info", ("parsers",)),
        ("/uploads", ("data",)),
        ("/uploads", ("pagination", "next_page_after_value")),
        ("", ("data", "upload_id")),
        ("", ("data", "errors")),
        ("", ("data", "embargo_length")),
        ("", ("data", "entries")),
        ("/rawdir/", ("directory_metadata",)),
        ("/rawdir/", ("directory_metadata", "content")),
        ("/rawdir/", ("directory_metadata", "content", 0)),
        ("/rawdir/", ("directory_metadata", "content", 0, "name")),
        ("/rawdir/", ("directory_metadata", "content", 0, "size")),
        (".sha256", ("file_metadata",)),
        (".sha256", ("file_metadata", "size")),
    ],
)
def test_an_answer_with_nonsense_in_it_is_no_crash(tmp_path, ending, where):
    artifact = make_artifact(tmp_path / "model")
    for number, value in enumerate(NONSENSE):
        nomad = NomadUploads()

        def respond(request, nomad=nomad, value=value):
            reply = nomad(request)
            if request.method != "GET" or reply.status != 200:
                return reply
            if not request.path.endswith(ending or next(iter(nomad.uploads), "-")):
                return reply
            answer = part = json.loads(reply.body)
            try:
                for key in where[:-1]:
                    part = part[key]
                part[where[-1]] = value
            except (KeyError, IndexError):
                return reply
            return Reply.of(answer)

        with Loopback(respond) as server, suppress(EpitaxyError):
            upload_id = make(server, deadline=5.0).publish(artifact).identifier
            clock = FakeClock().clock()
            with Service(server.url + PREFIX, TOKEN, clock=clock, attempts=2) as service:
                download(service, upload_id, tmp_path / str(number), tell=lambda line: None)


def test_a_server_that_is_something_else_is_no_nomad(artifact):
    hello, said = Reply.of(["hello"]), "is the address its API"
    with Loopback(lambda request: hello) as server, pytest.raises(SourceError, match=said):
        make(server).publish(artifact)


def test_an_address_without_the_api_is_explained(artifact, nomad):
    with (
        Loopback(nomad) as server,
        pytest.raises(PublishError, match=r"there is no NOMAD at this address.*ends in /api/v1"),
    ):
        NomadPublisher(url=f"{server.url}/nomad").publish(artifact)


def test_a_publication_that_was_killed_goes_on_where_it_was(artifact, nomad, server):
    server.hold(order_of(server, artifact, "PUT"))
    command = [
        *(sys.executable, "-m", "epitaxy", "publish", str(artifact), "--to", "nomad"),
        *("--set", f"url={server.url}{PREFIX}", "--set", "requests_per_second=0"),
    ]
    process = subprocess.Popen(command, stderr=subprocess.PIPE)
    assert server.holding.wait(60), process.communicate(timeout=5)
    process.kill()
    process.communicate()
    server.heal()
    receipt = make(server, publish=True).publish(artifact)
    assert receipt.facts["found_earlier"] is True
    assert the(nomad).published
    assert (n_puts(server), nomad.n_bodies) == (1, 1)  # what was sent had arrived


def test_a_file_that_changes_while_it_is_sent_stops_the_upload(artifact, nomad, server):
    inner = nomad._edit

    def meddle(request, upload_id):
        (artifact / "weights.bin").write_bytes(b"shorter")
        return inner(request, upload_id)

    nomad._edit = meddle
    with pytest.raises(EpitaxyError, match=r"weights\.bin has changed while it was sent"):
        make(server).publish(artifact)
    assert not the(nomad).files


# --- the calls themselves ---


def test_what_is_published_cannot_be_deleted(artifact, nomad, server):
    upload_id = make(server, publish=True).publish(artifact).identifier
    with Service(server.url + PREFIX, TOKEN, clock=FakeClock().clock()) as service:
        with pytest.raises(PublishError, match=r"403.*can neither be changed nor deleted"):
            service.delete(upload_id)
        with pytest.raises(PublishError, match=r"404.*epitaxy nomad list"):
            service.get("unknown")
        service.create_dataset("d")
        with pytest.raises(PublishError, match="choose another name"):
            service.create_dataset("d")


def test_an_upload_that_is_busy_is_deleted_when_it_is_done(artifact, nomad, server):
    upload_id = make(server).publish(artifact).identifier
    the(nomad).polls_left = 3
    with Service(server.url + PREFIX, TOKEN, clock=FakeClock().clock()) as service:
        service.delete(upload_id)
    assert not nomad.uploads
