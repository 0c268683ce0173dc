"""The client of databases, against a real server on this machine."""

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
from loopback import FakeClock, Loopback, Reply, Request

from epitaxy.errors import OptionError, SourceError
from epitaxy.web import Client

KEY = "Zq8sVerySecretKey"


def numbered(request: Request) -> Reply:
    """Answer with a list that depends on the page."""
    page = int(request.params.get("page", 0))
    return Reply.of({"data": [{"id": f"e{3 * page + i}"} for i in range(3)], "echo": request.path})


@pytest.fixture
def fake():
    """Give a clock; close the clients that were made with it."""
    clock = FakeClock()
    clock.clients = []
    yield clock
    for client in clock.clients:
        client.close()


def make(server: Loopback, folder: Path, fake: FakeClock, **options) -> Client:
    client = Client(server.url, cache=folder / "cache", clock=fake.clock(), seed=1, **options)
    fake.clients.append(client)
    return client


def test_an_answer_is_asked_for_once_and_then_comes_from_the_disk(tmp_path, fake):
    with Loopback(numbered) as server, make(server, tmp_path, fake) as client:
        first = client.get("entries", {"page": 1})
        again = make(server, tmp_path, fake).get("entries", {"page": 1})
        assert first.json == again.json
        assert (first.from_cache, again.from_cache) == (False, True)
        assert first.retrieved == again.retrieved == "2027-01-15"
        assert server.n_requests == 1
        client.get("entries", {"page": 2})
        client.post("entries", {"page": 2})
        client.post("entries", {"page": 3})
        assert server.n_requests == 4


@pytest.mark.parametrize("fault", ["429", "500", "503", "dropped", "refused", "truncated", "empty"])
@pytest.mark.parametrize("compress", [False, True])
def test_a_fault_that_passes_is_tried_again(tmp_path, fake, fault, compress):
    with Loopback(numbered, compress=compress) as server, make(server, tmp_path, fake) as client:
        server.fail(fault, times=2)
        assert client.get_json("x", {"page": 1})["data"][0] == {"id": "e3"}
        assert server.n_requests == 3
        if fault != "429":  # which says itself that we need not wait
            assert 1.5 <= sum(fake.slept) <= 4.0  # 1 s and 2 s, less the jitter, and the pace


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("429", "answered 429 (too fast)"),
        ("500", "answered 500"),
        ("dropped", "broke off in the middle of its answer"),
        ("refused", "cannot be reached"),
        ("truncated", "JSON that is cut or damaged"),
        ("html", "no JSON, of type text/html, but '<html>log in</html>'"),
        ("empty", "an empty answer"),
        ("slow", "only a part of its answer within 0.7 s"),
    ],
)
def test_a_fault_that_stays_is_named_and_nothing_is_kept(tmp_path, fake, fault, said):
    with Loopback(numbered) as server:
        server.fail(fault, times=None)
        timeout = 0.7 if fault == "slow" else 60.0
        with make(server, tmp_path, fake, max_attempts=3, timeout=timeout) as client:
            with pytest.raises(SourceError) as caught:
                client.get_json("entries", {"page": 1})
            assert said in str(caught.value)
            assert "(3 attempts)" in str(caught.value)
            assert f"{server.url}/entries?page=1" in str(caught.value)
            assert "Start again later" in str(caught.value)
            server.heal()
            assert client.get_json("entries", {"page": 1})["data"]
        assert server.n_requests == 4


@pytest.mark.parametrize(("fault", "least", "most"), [("429 late", 7, 8), ("429 date", 29, 31)])
def test_the_service_says_how_long_to_wait(tmp_path, fake, fault, least, most):
    with Loopback(numbered) as server, make(server, tmp_path, fake) as client:
        server.now = lambda: fake.time
        server.fail(fault)
        client.get("x")
    assert least <= max(fake.slept) <= most


def test_a_service_that_asks_to_wait_for_hours_is_not_waited_for(tmp_path, fake):
    def busy(reply: Reply) -> Reply:
        return Reply.of({}, status=503, headers={"Retry-After": "7200"})

    with Loopback(numbered) as server, make(server, tmp_path, fake) as client:
        server.fail(busy, times=None)
        with pytest.raises(SourceError, match=r"1 attempt\); it asks to wait 7,200 s"):
            client.get("x")
        assert not fake.slept


def test_pauses_grow_and_differ_between_clients(tmp_path):
    def pauses(seed: int) -> list[float]:
        fake = FakeClock()
        with Loopback(numbered) as server:
            server.fail("500", times=None)
            options = {"cache": "none", "clock": fake.clock(), "seed": seed}
            with (
                Client(server.url, requests_per_second=0, **options) as client,
                pytest.raises(SourceError),
            ):
                client.get("x")
        return fake.slept

    first, second = pauses(1), pauses(2)
    assert len(first) == 5
    assert all(0.5 * 2**i <= p <= 2**i for i, p in enumerate(first))
    assert first != second
    assert first == pauses(1)


@pytest.mark.parametrize("status", [400, 403, 404, 405, 410, 422])
def test_a_refusal_is_not_tried_again(tmp_path, fake, status):
    with Loopback(lambda r: Reply.of({"errors": [{"detail": "no"}]}, status=status)) as server:
        with pytest.raises(SourceError, match=rf"answered {status} \(no\)"):
            make(server, tmp_path, fake).get("x")
        assert server.n_requests == 1


def test_requests_keep_their_distance(tmp_path, fake):
    with Loopback(numbered) as server, make(server, tmp_path, fake) as client:
        for page in range(5):
            client.get("x", {"page": page})
    assert sum(fake.slept) == pytest.approx(4 / 5.0)


def test_an_answer_that_trickles_in_ends_at_the_deadline(tmp_path, fake):
    class Trickle(Loopback):
        def _write(self, http, request, reply, fault):
            http.send_response(200)
            http.send_header("Content-Length", "1000")
            http.end_headers()
            for _ in range(100):
                fake.time += 10
                try:
                    http.wfile.write(b"[" * 10)
                    http.wfile.flush()
                except OSError:
                    return

    with (
        Trickle(numbered) as server,
        pytest.raises(SourceError, match="only a part of its answer within 60 s"),
    ):
        make(server, tmp_path, fake, max_attempts=1).get("x")


def test_an_answer_that_does_not_pass_the_check_is_not_kept(tmp_path, fake):
    def check(answer: object) -> None:
        if "data" not in answer:
            raise SourceError("no 'data'")

    with Loopback(numbered) as server, make(server, tmp_path, fake) as client:
        server.fail("schema")
        with pytest.raises(SourceError, match=r"127.0.0.1:\d+/x: no 'data'"):
            client.get("x", check=check)
        assert client.get("x", check=check).json["data"]
        assert server.n_requests == 2


def test_refresh_asks_once_per_client(tmp_path, fake):
    with Loopback(numbered) as server:
        make(server, tmp_path, fake).get("x")
        again = make(server, tmp_path, fake, refresh=True)
        assert [again.get("x").from_cache for _ in range(3)] == [False, True, True]
        assert server.n_requests == 2


def test_the_newest_answer_is_asked_for_and_the_kept_one_helps_out(tmp_path, fake, caplog):
    with Loopback(numbered) as server:
        client = make(server, tmp_path, fake, max_attempts=1)
        client.get("x")
        assert not make(server, tmp_path, fake).get("x", newest=True).from_cache
        server.fail("500", times=None)
        with caplog.at_level(logging.WARNING):
            again = make(server, tmp_path, fake, max_attempts=1)
            assert again.get("x", newest=True).from_cache
        assert "taking the answer of 2027-01-15 from the cache" in caplog.text


def test_scopes_do_not_share_answers(tmp_path, fake):
    with Loopback(numbered) as server:
        make(server, tmp_path, fake, scope="version 1").get("x")
        make(server, tmp_path, fake, scope="version 2").get("x")
        assert server.n_requests == 2


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "text"])
def test_a_damaged_file_of_the_cache_is_asked_for_again(tmp_path, fake, caplog, damage):
    with Loopback(numbered) as server:
        expected = make(server, tmp_path, fake).get("x").json
        (path,) = (tmp_path / "cache").rglob("*.answer")
        content = bytearray(path.read_bytes())
        if damage == "cut":
            content = content[:-20]
        elif damage == "flipped":
            content[-12] ^= 0xFF
        elif damage == "empty":
            content = bytearray()
        else:
            content = bytearray(b"something else")
        path.write_bytes(content)
        with caplog.at_level(logging.WARNING):
            assert make(server, tmp_path, fake).get("x").json == expected
        assert server.n_requests == 2
        assert "damaged" in caplog.text
        assert make(server, tmp_path, fake).get("x").from_cache


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_cache_that_cannot_be_written_is_named(tmp_path, fake):
    (tmp_path / "cache").mkdir(mode=0o500)
    with Loopback(numbered) as server, pytest.raises(SourceError, match="cache=none"):
        make(server, tmp_path, fake).get("x")


def test_a_cache_folder_that_is_a_file_is_named(tmp_path, fake):
    (tmp_path / "cache").write_text("")
    with Loopback(numbered) as server, pytest.raises(SourceError, match="cache=none"):
        make(server, tmp_path, fake).get("x")


def test_without_a_cache_nothing_is_written(tmp_path, fake, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with Loopback(numbered) as server:
        with Client(server.url, cache="none", clock=fake.clock()) as client:
            client.get("x")
            client.get("x")
        assert server.n_requests == 2
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform != "linux", reason="the place differs")
def test_the_cache_of_the_user_is_where_the_platform_says(tmp_path, fake, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with Loopback(numbered) as server, Client(server.url, clock=fake.clock()) as client:
        client.get("x")
    assert len(list((tmp_path / "epitaxy").rglob("*.answer"))) == 1


def test_an_answer_that_is_too_large_is_refused(tmp_path, fake):
    with (
        Loopback(lambda r: Reply(b"[" + b" " * 10_000 + b"]")) as server,
        pytest.raises(SourceError, match="larger than 1,000 bytes; ask for fewer"),
    ):
        make(server, tmp_path, fake, max_bytes=1000).get("x")


def test_nobody_listens(tmp_path, fake):
    with Loopback(numbered) as server:
        pass
    with pytest.raises(SourceError, match=r"cannot be reached: ConnectError.*6 attempts"):
        make(server, tmp_path, fake).get("x")


@pytest.mark.parametrize(
    ("url", "options"),
    [
        ("api.host.org", {}),
        ("ftp://host", {}),
        ("http://host", {"max_attempts": 0}),
        ("http://host", {"timeout": 0}),
        ("http://host", {"requests_per_second": -1}),
    ],
)
def test_wrong_options_are_named(url, options):
    with pytest.raises(OptionError):
        Client(url, cache="none", **options)


def test_without_httpx_the_message_has_the_pip_command():
    program = (
        "import sys; sys.modules['httpx'] = None\n"
        "from epitaxy.web import Client\n"
        "from epitaxy.errors import MissingDependencyError\n"
        "try: Client('http://host')\n"
        "except MissingDependencyError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert "pip install 'epitaxy[sources]'" in done.stdout


def test_importing_the_client_imports_no_http_library():
    program = "import sys, epitaxy.web; print({'httpx', 'tenacity', 'numpy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "set()"


CONTENT = bytes(range(256)) * 4000


def file_of(content: bytes = CONTENT, etag: str = '"one"'):
    return lambda request: Reply(content, etag=etag)


def test_a_download_goes_on_where_it_broke_off(tmp_path, fake):
    with Loopback(file_of()) as server, make(server, tmp_path, fake) as client:
        server.fail("dropped", times=2)
        path = client.download("big", tmp_path / "files" / "big")
        assert path.read_bytes() == CONTENT
        starts = [r.headers.get("range") for r in server.requests]
        assert starts[0] is None
        assert all(s is not None for s in starts[1:])
        assert [p.name for p in path.parent.iterdir()] == ["big"]
        client.download("big", path)
        assert server.n_requests == 3


def test_a_download_goes_on_in_another_process(tmp_path, fake):
    with Loopback(file_of()) as server:
        server.fail("dropped", times=None)
        with pytest.raises(SourceError, match="broke off"):
            make(server, tmp_path, fake, max_attempts=1).download("big", tmp_path / "big")
        assert not (tmp_path / "big").exists()
        server.heal()
        n_before = server.n_requests
        make(server, tmp_path, fake).download("big", tmp_path / "big")
        assert server.n_requests == n_before + 1
        assert "range" in server.requests[-1].headers
    assert (tmp_path / "big").read_bytes() == CONTENT


def test_a_file_that_changed_in_between_is_read_anew(tmp_path, fake):
    with Loopback(file_of()) as server, make(server, tmp_path, fake) as client:
        server.fail("dropped")
        other = CONTENT[::-1]

        def changed(reply: Reply) -> Reply:
            return Reply(other, etag='"two"')

        server.fail(changed, at=2, times=None)
        assert client.download("big", tmp_path / "big").read_bytes() == other


def test_a_download_is_not_interrupted_by_another_of_the_same_file(tmp_path, fake):
    import fcntl

    with (tmp_path / ".big.part").open("ab") as held, Loopback(file_of()) as server:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(SourceError, match="another process downloads this file"):
            make(server, tmp_path, fake).download("big", tmp_path / "big")


def test_a_download_without_etag_starts_anew(tmp_path, fake):
    with Loopback(file_of(etag="")) as server, make(server, tmp_path, fake) as client:
        server.fail("dropped")
        assert client.download("big", tmp_path / "big").read_bytes() == CONTENT
        assert "range" not in server.requests[-1].headers
