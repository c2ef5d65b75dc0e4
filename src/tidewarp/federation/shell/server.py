"""Serves a :class:`~tidewarp.federation.peer.PeerHandler` over HTTP/1.1. Moves bytes and keeps bounds; decides nothing.

64 connections and 8 of one peer, each in a thread of a bounded pool. A request's head has 16 KiB and 10 s, a body 64 KiB/s,
and a connection that says nothing ends after 30 s. Without TLS only loopback addresses are bound; with it, who does not
hold a pinned key is let go before a byte of a request is read.
"""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import ssl
import threading
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler
from io import BufferedReader
from socketserver import TCPServer
from types import MappingProxyType, TracebackType
from typing import Any, Self

from tidewarp.clocks.pacing import Clock
from tidewarp.clocks.wall import WallClock
from tidewarp.errors import OperatorError, PeerRefused, TidewarpError
from tidewarp.federation.documents import RefusalDocument, encode_json
from tidewarp.federation.messages import JSON_TYPE, HttpRequest, HttpResponse
from tidewarp.federation.peer import BODY_BYTES, PeerHandler
from tidewarp.federation.rates import RequestRates
from tidewarp.federation.shell.streams import DeadlineReader, TooMuch, send_all, transfer_s
from tidewarp.federation.shell.tls import Tls, check_peer_key
from tidewarp.store.admission import Role

__all__ = ["CONNECTIONS_MAX", "CONNECTIONS_PER_PEER", "HEAD_BYTES_MAX", "PeerServer"]

CONNECTIONS_MAX = 64
CONNECTIONS_PER_PEER = 8
HEAD_BYTES_MAX = 16 << 10
_HEAD_S = 10.0
_IDLE_S = 30.0
_LAST_S = 1.0  # for a client that was refused to read why
_BUSY = b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


class PeerServer:
    """A server that answers from its construction to :meth:`close`; a context manager.

    Args:
        handler: what answers.
        host, port: where; port 0 lets the system choose one.
        tls: with which key, and whom it answers; None: anybody on this machine.
        roles: what the policy gives to who holds a pinned key (32 bytes).
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
        tls: Tls | None = None,
        roles: Mapping[bytes, frozenset[Role]] = MappingProxyType({}),
        clock: Clock | None = None,
    ) -> None:
        address = _address(host, is_open=tls is None)
        self._scheme = "http" if tls is None else "https"
        try:
            self._listener = _Listener(handler, (str(address), port), address.version, tls, roles, clock or WallClock())
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
        tls: Tls | None,
        roles: Mapping[bytes, frozenset[Role]],
        clock: Clock,
    ) -> None:
        self.address_family = socket.AF_INET6 if version == 6 else socket.AF_INET
        self.handler = handler
        self.clock = clock
        self._pinned = frozenset() if tls is None else tls.pinned
        self._roles = roles
        self._context = None if tls is None else tls.server()
        self._rates = RequestRates()
        self._lock = threading.Lock()
        self._connections: dict[socket.socket, str] = {}
        self._pool = ThreadPoolExecutor(CONNECTIONS_MAX, "tidewarp-peer")
        super().__init__(address, _Connection)

    def wait_s(self, peer: str) -> int:
        """Take one request of ``peer``: 0, or the seconds after which it may try again."""
        with self._lock:
            return self._rates.wait_s(peer, self.clock.now())

    def roles(self, request: socket.socket) -> frozenset[Role]:
        """Those of the other side; without TLS it is not known, and has none."""
        if not isinstance(request, ssl.SSLSocket):
            return frozenset()
        return self._roles.get(check_peer_key(request, self._pinned, "client"), frozenset())

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
        with contextlib.suppress(OSError):  # it may have gone already
            request.setblocking(False)
            request.send(_BUSY)
        self.shutdown_request(request)

    def _work(self, request: socket.socket, client_address: Any) -> None:
        request = self._wrapped(request)
        try:
            if self._is_known(request):
                self.finish_request(request, client_address)
        except Exception:
            self.handle_error(request, client_address)  # to stderr, with its traceback: it is a bug
        finally:
            self.shutdown_request(request)
            with self._lock:
                del self._connections[request]

    def _wrapped(self, request: socket.socket) -> socket.socket:
        """The connection, under TLS if there is any; nothing has been said in it yet."""
        if self._context is None:
            return request
        with self._lock:  # who closes the server ends what it finds
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
            check_peer_key(request, self._pinned, "client")
        except (OSError, ValueError, PeerRefused):  # ValueError: the socket was closed under us
            with contextlib.suppress(OSError, ValueError):  # what it still sends would undo the alert that says why
                request.settimeout(_LAST_S)
                request.shutdown(socket.SHUT_WR)
                request.recv(HEAD_BYTES_MAX)
            return False
        return True

    def server_close(self) -> None:
        """End what is open."""
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
            self.send_error(431, f"a head has at most {HEAD_BYTES_MAX} bytes")
        except TimeoutError:
            self.send_error(408, "it came too slowly")
        except (OSError, ValueError):  # the other side has gone; ValueError: the socket was closed under us
            self.close_connection = True

    def _serve(self) -> None:
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
        body = self._body()
        if body is None:
            return
        wait_s = self.server.wait_s(self.client_address[0])
        if wait_s:
            self._send(HttpResponse(429, {"retry-after": str(wait_s)}, _refused("429", "too many requests", "wait")))
            return
        headers = {name.lower(): value for name, value in self.headers.items()}
        self._send(
            self.server.handler.handle(
                HttpRequest(self.command, self.path, headers, body, self.server.roles(self.request))
            )
        )

    def _body(self) -> bytes | None:
        """The body of the request; None if it was refused."""
        lengths = self.headers.get_all("content-length", ["0"])
        if len(set(lengths)) > 1:  # RFC 9112, section 6.3: another reader would see another end of the body
            self.send_error(400, "a request has one length")
            return None
        text = lengths[0]
        if self.headers.get("transfer-encoding") or not (text.isascii() and text.isdigit()) or len(text) > 19:
            self.send_error(411, "a body comes with its length")
            return None
        size = int(text)
        if size > BODY_BYTES:
            self.send_error(413, f"a body has at most {BODY_BYTES} bytes")
            return None
        self._reader.allow(transfer_s(size), size or 1)
        body = self.rfile.read(size)
        if len(body) < size:
            raise ConnectionError("it ended within its body")
        return body

    def _send(self, answer: HttpResponse) -> None:
        whole = answer.body if isinstance(answer.body, bytes) else None
        size = answer.size if answer.size is not None else len(answer.whole)
        lines = [f"HTTP/1.1 {answer.status} {self.responses.get(answer.status, ('',))[0]}"]
        lines += [f"{name}: {value}" for name, value in _headers(answer, size, close=self.close_connection).items()]
        head = "\r\n".join([*lines, "", ""]).encode("latin-1")
        if whole is not None:
            send_all(self.request, head + whole)
            return
        send_all(self.request, head)
        try:
            for piece in answer.body:
                send_all(self.request, piece)  # type: ignore[arg-type]  # pieces are bytes
        except TidewarpError:  # what is stored is damaged: the length that was promised is not reached, and that tells
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
        raise OperatorError(host, "not an address of this machine", "give 127.0.0.1 or ::1") from None
    if is_open and not address.is_loopback:
        raise OperatorError(host, "without TLS only loopback addresses are served", "give 127.0.0.1, ::1 or --tls")
    return address
