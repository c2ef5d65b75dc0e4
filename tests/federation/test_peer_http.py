"""The real server and the real client over loopback: bytes, bounds and time; ports that the system chose."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Iterator

import pytest
from node import Node

from tidewarp.codec.artifacts import Artifact
from tidewarp.codec.batches import decode_batch
from tidewarp.errors import Corrupt, OperatorError, OwnDomainForked, PeerRefused
from tidewarp.federation.messages import GetArtifact, GetHeads, GetRecords, HttpRequest, HttpResponse
from tidewarp.federation.peer import PeerHandler
from tidewarp.federation.rates import RequestRates
from tidewarp.federation.shell import plan, pull, serve
from tidewarp.federation.shell.client import PeerClient
from tidewarp.federation.shell.server import CONNECTIONS_PER_PEER, HEAD_BYTES_MAX, PeerServer
from tidewarp.federation.verify import Wanted

SAFETY_S = 20.0  # of sockets of the tests: a test that fails does not hang


class Racing:
    """A clock on which each look takes so many seconds: nothing waits, and deadlines come."""

    def __init__(self, step_s: float) -> None:
        self._now_s = 0.0
        self._step_s = step_s

    def now(self) -> float:
        self._now_s += self._step_s
        return self._now_s

    def unix_ns(self) -> int:
        return 0

    def wait(self, inbox, timeout_s):
        raise NotImplementedError


class Still(Racing):
    """A clock on which no time passes."""

    def __init__(self) -> None:
        super().__init__(0.0)


@contextlib.contextmanager
def wire(url: str) -> Iterator[socket.socket]:
    """A connection to a server, of bytes."""
    host, _, port = url.removeprefix("http://").rpartition(":")
    with socket.create_connection((host, int(port)), timeout=SAFETY_S) as connection:
        yield connection


def rest_of(connection: socket.socket) -> bytes:
    """All that comes until the other side ends."""
    data = b""
    with contextlib.suppress(ConnectionResetError):
        while piece := connection.recv(65_536):
            data += piece
    return data


def said(server: PeerServer, data: bytes) -> bytes:
    """What a server answers to some bytes, after which nothing more comes."""
    with wire(server.url) as connection:
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        return rest_of(connection)


def get(target: str, *lines: str, method: str = "GET") -> bytes:
    return "\r\n".join([f"{method} {target} HTTP/1.1", "host: x", *lines, "", ""]).encode()


@contextlib.contextmanager
def answering(*answers: bytes) -> Iterator[str]:
    """A server that answers each connection with the next of these bytes, whatever it is asked, and ends."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(SAFETY_S)

        def serve_all() -> None:
            for answer in answers:
                with contextlib.suppress(OSError):
                    connection, _ = listener.accept()
                    with connection:
                        connection.settimeout(SAFETY_S)
                        connection.recv(65_536)
                        connection.sendall(answer)

        thread = threading.Thread(target=serve_all)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            with contextlib.suppress(OSError):  # it may have answered all
                listener.shutdown(socket.SHUT_RDWR)
            thread.join()


# --- both ends


def test_a_pull_over_http(a, b):
    """Records, bytes large and small; then one question that says there is nothing."""
    small, large = a.put(b"small"), a.put(bytes(range(256)) * 40_000)
    with serve(a) as server:
        assert plan(b, server.url).domains[0].outcome == "to pull"
        report = pull(b, server.url)
        assert (report.records, report.conflicts, report.incomplete, report.answered) == (2, 0, "", True)
        assert report.bytes > 10_240_000
        again = pull(b, server.url)
        assert (again.records, again.bytes, again.domains) == (0, 0, ())
    assert b.logs[a.domain] == a.logs[a.domain]
    assert b.artifacts[small] == Artifact(b"small")
    assert b.artifacts[large] == a.artifacts[large]


def test_nobody_answers(b):
    """The report says so, and nothing is raised: what was committed before would be kept."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    report = pull(b, f"http://127.0.0.1:{port}")
    assert (report.records, report.answered, report.conflicts) == (0, False, 0)
    assert report.incomplete


def test_one_domain_and_bounds(a, b):
    """The options reach the machine."""
    for n in range(5):
        a.put(b"%d" % n)
    with serve(a) as server:
        assert pull(b, server.url, until=2).records == 2
        assert pull(b, server.url, records_max=1).records == 1
        assert pull(b, server.url, domains=[b.domain]).records == 0
        assert pull(b, server.url, domains=[a.domain]).records == 2


def test_the_own_domain_forked(a, b):
    """Two copies that were both written to: the error names the domain, the proof is kept."""
    double = Node("a")
    a.put(b"left")
    double.put(b"right")
    with serve(double) as server, pytest.raises(OwnDomainForked, match=a.domain.hex()):
        pull(a, server.url)
    assert [one.kind for one in ledger_conflicts(a)] == ["fork"]
    double.close()


def ledger_conflicts(node):
    from tidewarp.federation.exchange import ledger_of

    return ledger_of(node).conflicts()


@pytest.mark.parametrize(
    "url",
    [
        "",
        "x",
        "ftp://127.0.0.1:1",
        "https://127.0.0.1:1",
        "http://",
        "http://127.0.0.1:99999",
        "http://h/p",
        "http://u@h:1",
        "http://h:1?q",
        "http://[::1",
        "http://h:0",
        "http://h:1#f",
        "http://h:1\n",
        "http://exa mple:1",
        "http://" + "a" * 300 + ":1",
        "http://" + "a." * 130 + ":1",
        "http://a..b:1",
    ],
)
def test_addresses_that_are_none(b, url):
    """Refused before anything is asked."""
    with pytest.raises(OperatorError):
        pull(b, url)


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "::", "example.org", ""])
def test_without_tls_only_loopback_is_served(a, host):
    """No other address is bound."""
    with pytest.raises(OperatorError):
        serve(a, host)


def test_a_port_that_is_taken(a):
    """Named, with what to do; port 0 is any."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(OperatorError, match=str(port)):
            serve(a, port=port)
    with pytest.raises(OperatorError):
        serve(a, port=70_000)


def test_a_server_ends_with_its_connections(a):
    """Close lets idle connections go at once; a second close does nothing."""
    server = serve(a)
    with wire(server.url) as connection:
        connection.sendall(get("/healthz"))
        assert connection.recv(65_536).startswith(b"HTTP/1.1 200")
        server.close()
        assert rest_of(connection) == b""
    server.close()


# --- the server against a hostile client


@pytest.fixture
def server(a):
    a.put(b"hello")
    with serve(a) as made:
        yield made


def test_several_requests_on_one_connection(a, server):
    """Kept until the client says otherwise; answers in order."""
    answers = said(
        server, get("/healthz") + get("/v1/nothing") + get("/healthz", "connection: close") + get("/healthz")
    )
    assert answers.count(b"HTTP/1.1 200") == 2
    assert answers.count(b"HTTP/1.1 404") == 1


def test_head_and_304_have_no_body(a, server):
    """Length without bytes; nothing at all."""
    [reference] = a.artifacts
    answer = said(server, get(f"/v1/artifacts/{reference.hex()}", method="HEAD"))
    assert b"content-length: 14\r\n" in answer
    assert answer.endswith(b"\r\n\r\n")
    for target in ("/v1/contract", "/v1/nothing"):
        assert said(server, get(target, method="HEAD")).endswith(b"\r\n\r\n")
    etag = PeerHandler(a).handle(HttpRequest("GET", "/v1/heads")).headers["etag"]
    answer = said(server, get("/v1/heads", f"If-None-Match: {etag}"))
    assert answer.startswith(b"HTTP/1.1 304")
    assert b"content-length" not in answer


def test_a_body_comes_with_its_length(a, server):
    """POST: what is sent is read whole; without a length, too long, or cut short it is refused."""
    target = "/v1/artifacts/missing"
    assert said(server, get(target, "content-length: 4", method="POST") + bytes(4)).endswith(bytes(4))
    answer = said(server, get(target, "content-length: 4", "expect: 100-continue", method="POST") + bytes(4))
    assert answer.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 ")
    for line, status in (
        ("transfer-encoding: chunked", 411),
        ("content-length: -1", 411),
        ("content-length: 1e3", 411),
        ("content-length: \u00b2", 411),
        ("content-length: " + "9" * 30, 411),
        ("content-length: 18446744073709551616", 411),
        ("content-length: 1000000", 413),
    ):
        data = get(target, method="POST").decode().replace("\r\n\r\n", f"\r\n{line}\r\n\r\n").encode("latin-1")
        answer = said(server, data)
        assert answer.startswith(f"HTTP/1.1 {status} ".encode())
        assert {"error", "rule", "next"} == set(json.loads(answer.rpartition(b"\r\n\r\n")[2]))
    assert said(server, get(target, "content-length: 100", method="POST") + b"short") == b""


@pytest.mark.parametrize("lengths", [(4, 40), (40, 4), (0, 4), (4, 4, 5)])
def test_a_request_has_one_length(server, lengths):
    """With two, another reader of the same bytes would see another request behind it."""
    lines = [f"content-length: {length}" for length in lengths]
    answer = said(server, get("/v1/artifacts/missing", *lines, method="POST") + get("/healthz"))
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert answer.count(b"HTTP/1.1 ") == 1
    assert {"error", "rule", "next"} == set(json.loads(answer.rpartition(b"\r\n\r\n")[2]))


@pytest.mark.parametrize(
    "data",
    [
        b"\0\0\0\0\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET /healthz HTTP/9.9\r\n\r\n",
        b"GET /healthz HTTX/1.1\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(60) + b"\r\n\r\n",
        b"DELETE /healthz HTTP/1.1\r\n\r\n",
        b"GET /../../etc/passwd HTTP/1.1\r\n\r\n",
        b"GET /v1/artifacts/../../../etc/passwd HTTP/1.1\r\n\r\n",
        b"GET /v1/artifacts/%2e%2e%2fpolicy.toml HTTP/1.1\r\n\r\n",
    ],
)
def test_requests_that_are_none(server, data, capfd):
    """Refused in the form of all refusals, and the next client is served; nothing is printed."""
    answer = said(server, data)
    assert 400 <= int(answer.split()[1]) < 600
    document = json.loads(answer.rpartition(b"\r\n\r\n")[2])
    assert set(document) == {"error", "rule", "next"}
    assert all(document.values())
    assert b" 200 " in said(server, get("/healthz"))
    assert capfd.readouterr() == ("", "")


def test_an_endless_head_is_cut(server):
    """At 16 KiB: one long line, or very many short ones."""
    for data in (b"GET /" + b"a" * (HEAD_BYTES_MAX + 1), b"GET / HTTP/1.1\r\n" + b"x: y\r\n" * 5_000):
        with wire(server.url) as connection:
            with contextlib.suppress(OSError):  # it may have been cut already
                connection.sendall(data)
            answer = rest_of(connection)
        assert not answer or answer.startswith(b"HTTP/1.1 4")


@pytest.mark.parametrize("part", [b"G", b"GET /healthz HTTP/1.1\r\nx: "])
def test_a_client_that_never_ends_its_head(a, part):
    """After ten seconds of the server's clock it is let go."""
    with PeerServer(PeerHandler(a), clock=Racing(11.0)) as server, wire(server.url) as connection:
        connection.sendall(part)
        assert rest_of(connection).startswith(b"HTTP/1.1 408")


def test_a_client_that_never_ends_its_body(a):
    """The same of a body, at 64 KiB/s."""
    with PeerServer(PeerHandler(a), clock=Racing(10.5)) as server, wire(server.url) as connection:
        connection.sendall(get("/v1/artifacts/missing", "content-length: 9", method="POST") + b"x")
        assert rest_of(connection).startswith(b"HTTP/1.1 408")


def test_a_connection_that_says_nothing(a):
    """It is let go after thirty seconds of the server's clock."""
    with PeerServer(PeerHandler(a), clock=Racing(31.0)) as server, wire(server.url) as connection:
        assert b" 200 " not in rest_of(connection)


def test_eight_connections_of_one_peer(a):
    """The ninth is told to come again; when one has ended, the next is welcome."""
    with serve(a) as server, contextlib.ExitStack() as stack:
        held = [stack.enter_context(wire(server.url)) for _ in range(CONNECTIONS_PER_PEER)]
        for connection in held:
            connection.sendall(get("/healthz"))
            assert connection.recv(65_536).startswith(b"HTTP/1.1 200")
        with wire(server.url) as ninth:
            assert rest_of(ninth).startswith(b"HTTP/1.1 503")
        held[0].sendall(get("/healthz", "connection: close"))
        rest_of(held[0])
        while True:  # until the server has noticed
            with wire(server.url) as tenth:
                tenth.sendall(get("/healthz", "connection: close"))
                if rest_of(tenth).startswith(b"HTTP/1.1 200"):
                    break


def test_two_hundred_requests_a_second(a):
    """The next is told when to come again."""
    with PeerServer(PeerHandler(a), clock=Still()) as server:
        answers = said(server, get("/healthz") * 100) + said(server, get("/healthz") * 101)
    assert answers.count(b"HTTP/1.1 200") == 200
    assert answers.count(b"HTTP/1.1 429") == 1
    assert b"retry-after: 1\r\n" in answers


def test_rates_fill_up_again():
    """A bucket for each peer; it fills with time, and holds no more than it can."""
    rates = RequestRates(2)
    assert [rates.wait_s("a", 0.0) for _ in range(3)] == [0, 0, 1]
    assert rates.wait_s("b", 0.0) == 0
    assert [rates.wait_s("a", 0.5) for _ in range(2)] == [0, 1]
    assert [rates.wait_s("a", 1e9) for _ in range(3)] == [0, 0, 1]
    assert [rates.wait_s("a", 0.0) for _ in range(2)] == [1, 1]  # a clock that went back lends nothing
    for n in range(5_000):
        assert rates.wait_s(f"peer {n}", 0.0) == 0


def test_the_operator_reads_where_a_fault_is_and_a_peer_does_not(a, caplog):
    """Each fault is one line in the log, however often it is asked for, and at most a hundred."""
    reference = a.put(b"a reading")
    where = iter(["/srv/A/store.db: record 7"] * 3 + [f"/srv/A/store.db: record {n}" for n in range(100, 250)])

    def damaged(reference):
        raise Corrupt(next(where), "it is missing", "restore it")

    a.info = damaged
    with serve(a) as server, PeerClient(server.url) as client:
        for _ in range(153):
            answer = client.ask(GetArtifact(a.domain, Wanted(1, reference, None)))
            assert answer.status == 500
            assert b"/srv" not in answer.whole
            assert b'"record ' in answer.whole
    assert len(caplog.messages) == 100
    assert caplog.messages[0] == "this store has a fault: /srv/A/store.db: record 7: it is missing; restore it"
    assert len({*caplog.messages}) == 100


def test_damaged_bytes_are_not_passed_off_as_whole(a, b):
    """What is found damaged while it is sent ends the connection before the length that was promised."""
    large = a.put(bytes(100_000))
    read = a.get

    def damaged(reference, *, offset=0, length=None):
        if offset or length:
            raise Corrupt("block", "damaged", "mend it")
        return read(reference)

    a.get = damaged
    with serve(a) as server:
        report = pull(b, server.url)
    assert report.records == 0
    assert report.incomplete or report.conflicts
    assert large not in b.artifacts


# --- the client against a hostile server

WANTED = Wanted(1, Artifact(b"x").reference(), None)
QUESTIONS = [GetHeads(), GetRecords(bytes(32), 0, 1), GetArtifact(bytes(32), WANTED)]


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda one: type(one).__name__)
@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"\0" * 100,
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 100,
        b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 18446744073709551616\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: -5\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-encoding: zstd\r\n\r\n[]",
        b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 404 Not Found\r\ncontent-length: 99999999\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 5_000 + b"\r\n",
        b"HTTP/1.1 200 OK\r\nx: " + b"y" * 70_000 + b"\r\n\r\n",
        b"SSH-2.0-OpenSSH\r\n",
    ],
)
def test_answers_that_are_none(question, answer):
    """No length, another length, too long, encoded, leading elsewhere, no HTTP: PeerRefused or OSError, at once."""
    with answering(answer, answer) as url, PeerClient(url) as client, pytest.raises((PeerRefused, OSError)):
        whole(client.ask(question))


def whole(answer: HttpResponse) -> bytes:
    """The answer; what a check of its hash would find is an error here."""
    data = answer.whole
    if answer.size not in (None, len(data)):
        raise ConnectionError("it ended early")
    return data


def test_a_server_that_answers_byte_by_byte(a):
    """After ten seconds of the client's clock it is given up."""
    with (
        answering(b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 10) as url,
        PeerClient(url, clock=Racing(6.0)) as client,
        pytest.raises((PeerRefused, OSError)),
    ):
        client.ask(GetHeads())


def test_a_peer_that_went_away_meanwhile_is_asked_once_more(a, b):
    """A kept connection that the peer has ended is no failure."""
    body = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n[]"
    with answering(body, body) as url, PeerClient(url) as client:
        assert client.ask(GetHeads()).whole == b"[]"
        assert client.ask(GetHeads()).whole == b"[]"


def test_a_question_that_is_sent_ahead(a):
    """It is asked once, and answered when it is asked for; another question in its place gets its own answer."""
    for n in range(3):
        a.put(b"%d" % n)
    asked = []
    handler = PeerHandler(a)
    handle = handler.handle
    handler.handle = lambda request: (asked.append(request.target), handle(request))[1]
    with PeerServer(handler) as server, PeerClient(server.url) as client:
        first, second = GetRecords(a.domain, 0, 1), GetRecords(a.domain, 1, 1)
        client.send_ahead(first)  # no connection yet: nothing is sent
        client.ask(first)
        client.send_ahead(second)
        assert [one.header.seq for one in decode_batch(client.ask(second).whole)] == [2]
        assert asked == [first.target, second.target]
        client.send_ahead(first)
        assert [one.header.seq for one in decode_batch(client.ask(GetRecords(a.domain, 2, 1)).whole)] == [3]
        client.send_ahead(first)
    with pytest.raises(ConnectionRefusedError):
        client.ask(first)


def test_a_peer_that_ends_the_connection_after_a_question_was_sent_ahead(a):
    """It is asked once more."""
    body = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n[]"
    with answering(body, body) as url, PeerClient(url) as client:
        client.ask(GetHeads())
        question = GetHeads()
        client.send_ahead(question)
        assert client.ask(question).whole == b"[]"


def test_an_answer_that_was_not_read_to_its_end(a):
    """The next question gets its own answer."""
    large = a.put(bytes(3 << 20))
    with serve(a) as server, PeerClient(server.url, zstd=False) as client:
        wanted = Wanted(1, large, None)
        body = client.ask(GetArtifact(a.domain, wanted)).body
        assert not isinstance(body, bytes)
        next(iter(body))
        with contextlib.suppress(PeerRefused, OSError):
            client.ask(GetHeads())
        assert json.loads(client.ask(GetHeads()).whole)[0]["size"] == 1
