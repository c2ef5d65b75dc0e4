"""Serves a :class:`~tidewarp.federation.peer.PeerHandler` over HTTP/1.1. Moves bytes and keeps bounds; decides nothing.

64 connections and 8 of one peer, each in a thread of a bounded pool. A request's head has 16 KiB and 10 s, a body 64 KiB/s,
and a connection that says nothing ends after 30 s. At most 32 of the connections wait for a change at one time. Without TLS
only loopback addresses are bound; with it, who does not hold a pinned key is let go before a byte of a request is read.
"""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import socket
import ssl
import threading
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler
from io import BufferedReader
from queue import SimpleQueue
from socketserver import TCPServer
from types import TracebackType
from typing import Any, BinaryIO, Self

from tidewarp.clocks.pacing import Clock
from tidewarp.clocks.wall import WallClock
from tidewarp.errors import OperatorError, PeerRefused, TidewarpError
from tidewarp.federation.documents import RefusalDocument, encode_json
from tidewarp.federation.encoding import ENCODED_BYTES_MAX, ZSTD, accepts_zstd, is_available, pack_zstd
from tidewarp.federation.faults import fault_of
from tidewarp.federation.messages import BATCH_TYPE, JSON_TYPE, HttpRequest, HttpResponse
from tidewarp.federation.parcel import PARCEL_BYTES_MAX
from tidewarp.federation.peer import PeerHandler
from tidewarp.federation.rates import RequestRates
from tidewarp.federation.shell.callers import Callers, FixedCallers
from tidewarp.federation.shell.metrics import Metrics
from tidewarp.federation.shell.spool import new_spool
from tidewarp.federation.shell.streams import DeadlineReader, TooMuch, send_all, transfer_s
from tidewarp.federation.shell.tls import check_peer_key

__all__ = ["CONNECTIONS_MAX", "CONNECTIONS_PER_PEER", "HEAD_BYTES_MAX", "WAITING_MAX", "PeerServer"]

CONNECTIONS_MAX = 64
CONNECTIONS_PER_PEER = 8
WAITING_MAX = 32
"""Connections that wait for a change at one time."""

HEAD_BYTES_MAX = 16 << 10
_HEAD_S = 10.0
_IDLE_S = 30.0
_LAST_S = 1.0  # for a client that was refused to read why
_LOOK_S = 0.5  # how often somebody who waits for a change is looked after
_PACKED_BYTES_MIN = 1 << 10  # of an answer that is worth it
_PIECE_BYTES = 1 << 20
_FAULTS_MAX = 100  # lines in the log
_ENCODED_TYPES = frozenset({BATCH_TYPE, "application/octet-stream"})
_LOG = logging.getLogger("tidewarp.federation")
_BUSY = b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


class PeerServer:
    """A server that answers from its construction to :meth:`close`; a context manager.

    Args:
        handler: what answers.
        host, port: where; port 0 lets the system choose one.
        callers: with which key, and whom it answers; None: anybody on this machine.
        metrics: what is counted.
        clock: host time.

    Raises:
        OperatorError: an address beyond this machine, or a port that is taken.
    """

    def __init__(
        self,
        handler: PeerHandler,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        callers: Callers | None = None,
        metrics: Metrics | None = None,
        clock: Clock | None = None,
    ) -> None:
        known: Callers = callers or FixedCallers(None, {})
        is_open = known.tls() is None
        address = _address(host, is_open=is_open)
        self._scheme = "http" if is_open else "https"
        self.metrics = metrics or Metrics()
        """What was counted so far."""
        try:
            self._listener = _Listener(
                handler, (str(address), port), address.version, known, self.metrics, clock or WallClock()
            )
        except (OSError, OverflowError) as error:
            raise OperatorError(f"{host}:{port}", f"cannot be bound: {error}", "choose another port, or 0") from None
        self._thread = threading.Thread(target=self._listener.serve_forever, args=(0.1,), name="tidewarp-peer")
        self._thread.start()

    @property
    def url(self) -> str:
        """Where it answers."""
        host, port = str(self._listener.server_address[0]), self._listener.server_address[1]
        return f"{self._scheme}://[{host}]:{port}" if ":" in host else f"{self._scheme}://{host}:{port}"

    def close(self) -> None:
        """Let the connections go, and the address. Safe to call twice."""
        if self._thread.is_alive():
            with contextlib.suppress(OSError):  # not every system lets a listener be woken so: it looks up after 0.1 s
                self._listener.socket.shutdown(socket.SHUT_RDWR)
            self._listener.shutdown()
            self._thread.join()
            self._listener.server_close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Listener(TCPServer):
    """Accepts connections, as many as there is room for, and gives each a thread."""

    allow_reuse_address = True
    request_queue_size = CONNECTIONS_MAX

    def __init__(
        self,
        handler: PeerHandler,
        address: tuple[str, int],
        version: int,
        callers: Callers,
        metrics: Metrics,
        clock: Clock,
    ) -> None:
        self.address_family = socket.AF_INET6 if version == 6 else socket.AF_INET
        self.handler = handler
        self.clock = clock
        self.metrics = metrics
        self.is_closing = False
        self._callers = callers
        self._spoken = callers.tls()
        self._context = None if self._spoken is None else self._spoken.server()
        self._waiting = 0
        self._faults: set[str] = set()
        self._rates = RequestRates()
        self._lock = threading.Lock()
        self._connections: dict[socket.socket, str] = {}
        self._pool = ThreadPoolExecutor(CONNECTIONS_MAX, "tidewarp-peer")
        super().__init__(address, _Connection)

    def wait_s(self, peer: str) -> int:
        """Take one request of ``peer``: 0, or the seconds after which it may try again."""
        with self._lock:
            return self._rates.wait_s(peer, self.clock.now())

    def note(self, fault: str) -> None:
        """Tell the operator of a fault of the store; of each once, and of so many. Peers cannot fill the log by asking again."""
        with self._lock:
            if fault in self._faults or len(self._faults) >= _FAULTS_MAX:
                return
            self._faults.add(fault)
        _LOG.error("this store has a fault: %s", fault)

    def key(self, request: socket.socket) -> bytes:
        """That of the other side (32 bytes); without TLS it is not known, and empty. Raises PeerRefused: it is known no more."""
        if not isinstance(request, ssl.SSLSocket):
            return b""
        return check_peer_key(request, self._callers.keys(), "client")

    def asked_by(self, key: bytes, host: str, asked: HttpRequest) -> HttpRequest:
        """``asked``, with who asks."""
        roles = self._callers.roles().get(key, frozenset()) if key else frozenset()
        return asked._replace(key=key, roles=roles, is_local=ipaddress.ip_address(host).is_loopback)

    def answered(self, request: HttpRequest) -> HttpResponse:
        """What the handler answers, after it was waited for as it says."""
        answer = self.handler.handle(request)
        if not answer.wait_s:
            return answer
        with self._lock:
            if self._waiting >= WAITING_MAX:
                self.metrics.add("peer_limits_total", label='limit="waiting"')
                body = _refused(f"{WAITING_MAX} connections", "so many wait already", "ask for /v1/heads, or later")
                return HttpResponse(503, {"content-type": JSON_TYPE, "retry-after": "1"}, body)
            self._waiting += 1
        try:
            until_s = self.clock.now() + answer.wait_s
            while answer.wait_s and not self.is_closing and (left_s := until_s - self.clock.now()) > 0:
                self.clock.wait(SimpleQueue[None](), min(left_s, _LOOK_S))
                answer = self.handler.handle(request)
            return answer
        finally:
            with self._lock:
                self._waiting -= 1

    def process_request(self, request: Any, client_address: Any) -> None:
        """A thread for the connection, or a refusal."""
        peer = client_address[0]
        with self._lock:
            held = Counter(self._connections.values())
            is_welcome = len(self._connections) < CONNECTIONS_MAX and held[peer] < CONNECTIONS_PER_PEER
            if is_welcome:
                self._connections[request] = peer
        if is_welcome:
            self._pool.submit(self._work, request, client_address)
            return
        self.metrics.add("peer_limits_total", label='limit="connections"')
        with contextlib.suppress(OSError):  # it may have gone already
            request.setblocking(False)
            request.send(_BUSY)
        self.shutdown_request(request)

    def _work(self, request: socket.socket, client_address: Any) -> None:
        self.metrics.shift("peer_connections", 1)
        try:
            request = self._wrapped(request)
            if self._is_known(request):
                self.finish_request(request, client_address)
        except Exception:
            self.handle_error(request, client_address)  # to stderr, with its traceback: it is a bug
        finally:
            self.shutdown_request(request)
            with self._lock:
                self._connections.pop(request, None)
            self.metrics.shift("peer_connections", -1)

    def _wrapped(self, request: socket.socket) -> socket.socket:
        """The connection, under TLS if there is any; nothing has been said in it yet."""
        if self._context is None:
            return request
        spoken = self._callers.tls()
        with self._lock:  # who closes the server ends what it finds
            if spoken is not None and spoken is not self._spoken:
                self._spoken, self._context = spoken, spoken.server()
            peer = self._connections.pop(request)
            wrapped = self._context.wrap_socket(request, server_side=True, do_handshake_on_connect=False)
            self._connections[wrapped] = peer
        return wrapped

    def _is_known(self, request: socket.socket) -> bool:
        """Does the other side hold a pinned key? Without TLS nobody is asked."""
        if not isinstance(request, ssl.SSLSocket):
            return True
        try:
            request.settimeout(_HEAD_S)
            request.do_handshake()
            self.key(request)
        except (OSError, ValueError, PeerRefused):  # ValueError: the socket was closed under us
            with contextlib.suppress(OSError, ValueError):  # what it still sends would undo the alert that says why
                request.settimeout(_LAST_S)
                request.shutdown(socket.SHUT_WR)
                request.recv(HEAD_BYTES_MAX)
            return False
        return True

    def server_close(self) -> None:
        """End what is open."""
        self.is_closing = True
        super().server_close()
        with self._lock:
            for connection in self._connections:
                with contextlib.suppress(OSError):  # closed by the other side
                    connection.shutdown(socket.SHUT_RDWR)
        self._pool.shutdown()


class _Connection(BaseHTTPRequestHandler):
    """The requests of one connection, one after the other."""

    protocol_version = "HTTP/1.1"
    server: _Listener

    def setup(self) -> None:
        """Read with a deadline; write without a buffer."""
        self._reader = DeadlineReader(self.request, self.server.clock)
        self.rfile = BufferedReader(self._reader)
        self.request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def finish(self) -> None:
        """The socket is closed by its server."""
        self.rfile.close()

    def handle_one_request(self) -> None:
        """Answer one request; what breaks a bound ends the connection."""
        try:
            self._serve()
        except TooMuch:
            self._count_limit("head")
            self.send_error(431, f"a head has at most {HEAD_BYTES_MAX} bytes")
        except TimeoutError:
            self._count_limit("time")
            self.send_error(408, "it came too slowly")
        except PeerRefused:  # its key was taken out of those that are known while it was here
            self.close_connection = True
        except (OSError, ValueError):  # the other side has gone; ValueError: the socket was closed under us
            self.close_connection = True

    def _serve(self) -> None:
        self.command = ""  # of the request that is to come
        self._reader.allow(_IDLE_S, HEAD_BYTES_MAX)
        if not self.rfile.peek(1):  # type: ignore[attr-defined]  # it is a BufferedReader
            self.close_connection = True
            return
        self._reader.allow(_HEAD_S)
        self.raw_requestline = self.rfile.readline(HEAD_BYTES_MAX)
        if not self.raw_requestline.endswith(b"\n"):
            raise TooMuch("a request line without an end")
        if not self.parse_request():
            return
        headers = {name.lower(): value for name, value in self.headers.items()}
        host = self.client_address[0]
        asked = HttpRequest(self.command, self.path, headers)
        asked = self.server.asked_by(self.server.key(self.request), host, asked)
        size = self._size()
        if size is None:
            return
        refused = self._refusal(asked, size)
        if refused is not None:
            self._turn_away(refused, size)
            return
        with new_spool() as file:
            self._read(size, file)
            if self.command == "PUT":
                asked = asked._replace(source=file)
            else:
                asked = asked._replace(body=file.read())
            self._send(_packed(asked, self.server.answered(asked)))

    def _size(self) -> int | None:
        """Bytes of the body; None if the request was refused."""
        lengths = self.headers.get_all("content-length", ["0"])
        if len(set(lengths)) > 1:  # RFC 9112, section 6.3: another reader would see another end of the body
            self.send_error(400, "a request has one length")
            return None
        text = lengths[0]
        if self.headers.get("transfer-encoding") or not (text.isascii() and text.isdigit()) or len(text) > 19:
            self.send_error(411, "a body comes with its length")
            return None
        return int(text)

    def _refusal(self, asked: HttpRequest, size: int) -> HttpResponse | None:
        """Why the body, of ``size`` bytes, is not even read; None: it is."""
        wait_s = self.server.wait_s(self.client_address[0])
        if wait_s:
            self._count_limit("rate")
            headers = {"content-type": JSON_TYPE, "retry-after": str(wait_s)}
            return HttpResponse(429, headers, _refused("429", "too many requests", "wait"))
        size_max = self.server.handler.body_max(asked)
        if isinstance(size_max, HttpResponse):
            return size_max
        if size <= size_max:
            return None
        self._count_limit("body")
        rule = f"a body has at most {size_max} bytes here"
        return HttpResponse(413, {"content-type": JSON_TYPE}, _refused(f"{size} bytes", rule, "send less"))

    def _turn_away(self, refused: HttpResponse, size: int) -> None:
        """Refuse. The body goes nowhere, as far as it comes: who still sends it would not read why."""
        self.close_connection = self.close_connection or bool(size)
        with contextlib.suppress(OSError):  # it may have gone already
            self._send(refused)
            if size:
                self.request.shutdown(socket.SHUT_WR)
                size = min(size, PARCEL_BYTES_MAX)
                self._reader.allow(transfer_s(size), size)
                while self.rfile.read1(_PIECE_BYTES):
                    pass

    def _read(self, size: int, file: BinaryIO) -> None:
        """Read the body into ``file``, which then stands at its beginning."""
        self._reader.allow(transfer_s(size), size or 1)
        left = size
        while left:
            piece = self.rfile.read1(min(left, _PIECE_BYTES))
            if not piece:
                raise ConnectionError("it ended within its body")
            file.write(piece)
            left -= len(piece)
        self.server.metrics.add("peer_received_bytes_total", size)
        file.seek(0)

    def _count_limit(self, name: str) -> None:
        self.server.metrics.add("peer_limits_total", label=f'limit="{name}"')

    def _send(self, answer: HttpResponse) -> None:
        whole = answer.body if isinstance(answer.body, bytes) else None
        if self.command == "HEAD":  # RFC 9110, section 9.3.2: whatever the status, a body would be the next answer
            whole = b""
        size = answer.size if answer.size is not None else len(answer.whole)
        lines = [f"HTTP/1.1 {answer.status} {self.responses.get(answer.status, ('',))[0]}"]
        lines += [f"{name}: {value}" for name, value in _headers(answer, size, close=self.close_connection).items()]
        head = "\r\n".join([*lines, "", ""]).encode("latin-1")
        self.server.metrics.add("peer_requests_total", label=f'status="{answer.status}"')
        self.server.metrics.add("peer_sent_bytes_total", len(head) + size)
        self.server.metrics.add("peer_records_sent_total", answer.records)
        if answer.fault:
            self.server.note(answer.fault)
        if whole is not None:
            send_all(self.request, head + whole)
            return
        send_all(self.request, head)
        try:
            for piece in answer.body:
                send_all(self.request, piece)  # type: ignore[arg-type]  # pieces are bytes
        except TidewarpError as error:  # what is stored is damaged: the length promised is not reached, and that tells
            self.server.note(fault_of(error).line)
            self.close_connection = True

    def handle_expect_100(self) -> bool:
        """Let the client send its body."""
        send_all(self.request, b"HTTP/1.1 100 Continue\r\n\r\n")
        return True

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Refuse in the form of all refusals, and end the connection."""
        self.close_connection = True
        with contextlib.suppress(OSError):  # it may have gone already
            body = _refused(f"status {int(code)}", message or "it is no request", explain or "see /v1/contract")
            self._send(HttpResponse(int(code), {"content-type": JSON_TYPE}, body))

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: a peer could write what it likes to the log."""


def _packed(asked: HttpRequest, answer: HttpResponse) -> HttpResponse:
    """``answer`` in zstd, where that was asked for and makes it shorter."""
    size = len(answer.body) if isinstance(answer.body, bytes) else answer.size
    if (
        asked.method != "GET"
        or answer.status != 200
        or "content-encoding" in answer.headers
        or answer.headers.get("content-type") not in _ENCODED_TYPES
        or size is None
        or not _PACKED_BYTES_MIN <= size <= ENCODED_BYTES_MAX
        or not accepts_zstd(asked.headers.get("accept-encoding", ""))
        or not is_available()
    ):
        return answer
    try:
        whole = answer.whole
    except TidewarpError as error:  # what is stored is damaged: nothing of it has been sent yet
        fault = fault_of(error)
        body = _refused(fault.value, fault.rule, "ask another peer")
        return HttpResponse(500, {"content-type": JSON_TYPE}, body, fault=fault.line)
    data = pack_zstd(whole)
    if len(data) >= size:
        return answer._replace(body=whole)
    return answer._replace(headers={**answer.headers, "content-encoding": ZSTD}, body=data, size=None)


def _headers(answer: HttpResponse, size: int, *, close: bool) -> Mapping[str, str]:
    headers = dict(answer.headers)
    if answer.status != 304:
        headers["content-length"] = str(size)
    if close:
        headers["connection"] = "close"
    return headers


def _refused(value: str, rule: str, action: str) -> bytes:
    return encode_json(RefusalDocument(value, rule, action))


def _address(host: str, *, is_open: bool) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """The address of ``host``; on this machine alone where anybody is answered."""
    try:
        address = ipaddress.ip_address("127.0.0.1" if host == "localhost" else host)
    except ValueError:
        raise OperatorError(f"{host!r:.80}", "not an address of this machine", "give 127.0.0.1 or ::1") from None
    if is_open and not address.is_loopback:
        raise OperatorError(host, "without TLS only loopback addresses are served", "give 127.0.0.1, ::1 or --tls")
    return address
