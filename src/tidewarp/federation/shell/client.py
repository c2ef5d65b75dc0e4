"""Asks a peer over HTTP/1.1, on one connection that is kept. Bounds the time and the size of every answer; decides nothing."""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
from collections.abc import Iterable, Iterator
from functools import partial
from io import BufferedReader
from types import TracebackType
from typing import Any, Self, TypeGuard

from tidewarp.clocks.pacing import Clock
from tidewarp.clocks.wall import WallClock
from tidewarp.codec.frames import u64
from tidewarp.errors import CodecError, OperatorError, PeerRefused
from tidewarp.federation.addresses import ADDRESS_RULE, parse_address
from tidewarp.federation.encoding import ENCODED_BYTES_MAX, ZSTD, accepts_zstd, is_available, pack_zstd, unpack_zstd
from tidewarp.federation.messages import (
    Asked,
    GetArtifact,
    GetChanges,
    GetHeads,
    GetMissing,
    GetRecords,
    HttpResponse,
    PushArtifact,
    PushRecords,
)
from tidewarp.federation.parcel import PARCEL_TYPE
from tidewarp.federation.shell.streams import DeadlineReader, transfer_s
from tidewarp.federation.shell.tls import Tls, check_peer_key
from tidewarp.federation.verify import Refusal

__all__ = ["PeerClient"]

_CONNECT_S = 10.0
_HEAD_S = 10.0
_TAKING_S = 60.0  # for a peer to make durable what was pushed
_HEAD_BYTES_MAX = 16 << 10
_REFUSAL_BYTES_MAX = 64 << 10
_PIECE_BYTES = 1 << 20
_TOO_MANY = 429
_SENT_BYTES_MAX = 8 << 20  # of an artifact at one time
_OUR_KEY_IS_UNKNOWN = frozenset(
    {"TLSV1_ALERT_UNKNOWN_CA", "TLSV13_ALERT_CERTIFICATE_REQUIRED", "SSLV3_ALERT_CERTIFICATE_UNKNOWN"}
)


class PeerClient:
    """The peer at ``url``. Every method may raise OSError: nobody answers, or too slowly. A context manager.

    It follows no redirect, and no address that a peer sends.

    Args:
        url: ``http://HOST:PORT``, or ``https://HOST:PORT`` with ``tls``.
        tls: with which key this site speaks, and the one that the peer has to hold.
        clock: host time.
        zstd: ask for records and artifacts in that encoding; only where its package is here.

    Raises:
        OperatorError: the URL is not that of a peer, or it and ``tls`` do not go together.
    """

    def __init__(self, url: str, *, tls: Tls | None = None, clock: Clock | None = None, zstd: bool = True) -> None:
        self.url, host, port = _parts(url, "http" if tls is None else "https")
        self.refusal: PeerRefused | None = None
        """Why the two sides do not speak to each other: one does not know the other's key, or that one is no peer at all."""
        self.has_answered = False
        """Has anybody there said anything?"""
        self._clock = clock or WallClock()
        self._tls = tls
        self._wants_zstd = zstd and is_available()
        self._peer_takes_zstd = False
        self._is_interrupted = False
        self._connection = (
            http.client.HTTPConnection(host, port, timeout=_CONNECT_S)
            if tls is None
            else _TlsConnection(host, port, tls, self.url)
        )
        self._response: http.client.HTTPResponse | None = None  # the last one: it may outlive the connection
        self._is_fresh = True
        self._ahead: Asked | None = None  # sent, its answer not yet read

    def ask(self, question: Asked) -> HttpResponse:
        """The answer. Of an artifact its body is pieces, to be read before the next question.

        Raises:
            PeerRefused: an answer that is too long, has no length, or leads elsewhere.
            Refusal: one whose encoding is damaged, or hides more than may come.
        """
        headers = question.headers if isinstance(question, GetHeads) else {}
        try:
            self._response = self._asked(question, headers)
            return self._answer(question, self._response)
        except http.client.HTTPException as error:
            self._reset()
            raise PeerRefused(self.url, f"no HTTP/1.1: {error!r:.200}", "check the address") from None
        except ssl.SSLError as error:
            self._reset()
            self.refusal = self._refused(error)
            if self.refusal is None:
                raise
            raise self.refusal from None
        except (OSError, PeerRefused) as error:
            self._reset()
            if isinstance(error, _StrangerError):
                self.refusal = error
            raise

    def send_ahead(self, question: Asked) -> None:
        """Send a question whose answer :meth:`ask` will read, if that is the next one. What fails here, fails there."""
        with contextlib.suppress(OSError, http.client.HTTPException):
            if not self._is_fresh:
                self._ahead = question
                self._request(question, {})

    def interrupt(self) -> None:
        """Let the question that is open, and each that is asked from now on, end with ConnectionError. For a signal handler."""
        self._is_interrupted = True
        if self._connection.sock is not None:
            with contextlib.suppress(OSError):  # it has ended already
                self._connection.sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Let the connection go."""
        self._connection.close()
        if self._response is not None:
            self._response.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _asked(self, question: Asked, headers: dict[str, str]) -> http.client.HTTPResponse:
        head_s = _HEAD_S + (question.wait_ms / 1_000 if isinstance(question, GetChanges) else 0.0)
        if isinstance(question, PushRecords | PushArtifact):
            head_s = _TAKING_S
        self._connection.response_class = partial(_Response, self._clock, head_s)  # type: ignore[assignment]  # makes one
        sent, self._ahead = self._ahead, None
        with contextlib.suppress(ConnectionError, http.client.RemoteDisconnected, http.client.ResponseNotReady):
            # A kept connection may have been ended by the peer meanwhile; then the question is asked once more.
            if not self._is_fresh and sent in (None, question):
                if sent is None:
                    self._request(question, headers)
                return self._connection.getresponse()
        self._reset()
        self._check_uninterrupted()
        self._is_fresh = False
        self._request(question, headers)
        return self._connection.getresponse()

    def _check_uninterrupted(self) -> None:
        if self._is_interrupted:
            raise ConnectionError("it was interrupted")

    def _request(self, question: Asked, headers: dict[str, str]) -> None:
        method, body, more = self._written(question)
        if self._connection.sock is None:
            self._connection.timeout = _CONNECT_S
            self._connection.connect()
        piece = len(body) if isinstance(body, bytes) else _SENT_BYTES_MAX
        self._connection.sock.settimeout(transfer_s(piece))
        self._connection.request(method, question.target, body, {**headers, **more})
        self._check_uninterrupted()

    def _written(self, question: Asked) -> tuple[str, bytes | Iterable[bytes] | None, dict[str, str]]:
        """Method, body and headers."""
        if isinstance(question, PushArtifact):
            return "PUT", question.pieces(), {"content-length": str(question.size)}
        if isinstance(question, PushRecords):
            packed = pack_zstd(question.body) if self._wants_zstd and self._peer_takes_zstd else question.body
            is_packed = len(packed) < len(question.body)
            headers = {"content-type": PARCEL_TYPE, **({"content-encoding": ZSTD} if is_packed else {})}
            return "POST", packed if is_packed else question.body, headers
        if isinstance(question, GetMissing):
            return "POST", question.body, {}
        return "GET", None, {"accept-encoding": ZSTD} if self._may_be_packed(question) else {}

    def _may_be_packed(self, question: Asked) -> TypeGuard[GetRecords | GetArtifact]:
        return self._wants_zstd and isinstance(question, GetRecords | GetArtifact)

    def _answer(self, question: Asked, response: http.client.HTTPResponse) -> HttpResponse:
        self.has_answered = True
        status = response.status
        headers = {name.lower(): value for name, value in response.getheaders()}
        if status == 304:
            response.read()
            return HttpResponse(status, headers)
        if 300 <= status < 400:
            raise PeerRefused(
                self.url, f"it answers {status}: redirects are not followed", "give the peer's own address"
            )
        if isinstance(question, GetHeads) and 400 <= status < 500 and status != _TOO_MANY:
            rule = f"it answers {status} to {question.target}, so this is no tidewarp peer"
            self.refusal = _NoPeerError(
                self.url, rule, "check the address; there it is: tidewarp peer serve DIR --port P"
            )
            raise self.refusal
        size = self._length(question, status, headers)
        if not isinstance(response, _Response):
            raise TypeError(response)
        response.reader.allow(transfer_s(size), size + 1)
        is_packed = "content-encoding" in headers
        if isinstance(question, GetHeads):
            self._peer_takes_zstd = accepts_zstd(headers.get("accept-encoding", ""))
        if isinstance(question, GetArtifact) and status == 200 and not is_packed:
            return HttpResponse(status, headers, self._pieces(response, size), size)
        body = response.read(size)
        if len(body) < size:
            raise ConnectionError(f"the answer ended after {len(body)} of {size} bytes")
        response.read()  # nothing: it marks the answer as read
        if is_packed and self._may_be_packed(question):
            body = _unpacked(question, body)
        return HttpResponse(status, headers, body)

    def _length(self, question: Asked, status: int, headers: dict[str, str]) -> int:
        text = headers.get("content-length", "")
        bytes_max = question.bytes_max if status == 200 else _REFUSAL_BYTES_MAX
        is_strange = "content-encoding" in headers and not (
            status == 200 and headers["content-encoding"] == ZSTD and self._may_be_packed(question)
        )
        if "transfer-encoding" in headers or is_strange or not (text.isascii() and text.isdigit()):
            raise PeerRefused(
                self.url, "its answer does not say its length, or is encoded", "use a peer of this version"
            )
        if len(text) > 19 or int(text) > bytes_max:
            raise PeerRefused(
                self.url, f"an answer of {text[:20]} bytes, where at most {bytes_max} may come", "ask another peer"
            )
        return int(text)

    def _pieces(self, response: http.client.HTTPResponse, size: int) -> Iterator[bytes]:
        left = size
        while piece := response.read(_PIECE_BYTES):
            left -= len(piece)
            yield piece
        if left:  # the connection broke: no lie of the peer's, and no conflict
            raise ConnectionError(f"the answer ended after {size - left} of {size} bytes")

    def _refused(self, error: ssl.SSLError) -> PeerRefused | None:
        """What it means where one side has not taken the key of the other; None: the connection broke for another reason."""
        if isinstance(error, ssl.SSLCertVerificationError):
            return _StrangerError(self.url, "its key is not the one pinned", "ask its operator for the key")
        if self._tls is None or error.reason not in _OUR_KEY_IS_UNKNOWN:
            return None
        ours = self._tls.public_key.hex()
        action = f"there: tidewarp peer trust DIR NAME --key {ours}"
        return _StrangerError(self.url, "it does not know the key of this site", action)

    def _reset(self) -> None:
        self.close()
        self._is_fresh = True


def _unpacked(question: GetRecords | GetArtifact, body: bytes) -> bytes:
    """The answer out of its encoding. Raises Refusal."""
    try:
        return unpack_zstd(body, min(question.bytes_max, ENCODED_BYTES_MAX))
    except CodecError as error:
        seq = question.after + 1 if isinstance(question, GetRecords) else question.wanted.seq
        key = question.domain + u64(seq)
        raise Refusal("payload_mismatch", key, error.value, error.rule, body) from None


class _NoPeerError(PeerRefused):
    """Somebody else answers at the address that was given."""

    exit_code = OperatorError.exit_code


class _StrangerError(PeerRefused):
    """One of the two sides does not know the key of the other."""


class _TlsConnection(http.client.HTTPConnection):
    """A connection to who holds one of the keys that ``tls`` has pinned."""

    def __init__(self, host: str, port: int | None, tls: Tls, url: str) -> None:
        super().__init__(host, port, timeout=_CONNECT_S)
        self._tls = tls
        self._url = url
        self._context = tls.client()

    def connect(self) -> None:
        """Connect, shake hands and compare the key. Raises OSError, PeerRefused."""
        super().connect()
        try:
            wrapped = self._context.wrap_socket(self.sock)
            self.sock = wrapped
            check_peer_key(wrapped, self._tls.pinned, self._url)
        except PeerRefused as refusal:
            self.close()
            raise _StrangerError(*refusal.args) from None
        except OSError:
            self.close()
            raise


class _Response(http.client.HTTPResponse):
    """A response whose head and body have deadlines."""

    def __init__(self, clock: Clock, head_s: float, connection: socket.socket, *args: Any, **options: Any) -> None:
        super().__init__(connection, *args, **options)
        self._open = self.fp  # while it is, the socket is read even if the connection was closed behind the head
        self.reader = DeadlineReader(connection, clock)
        self.reader.allow(head_s, _HEAD_BYTES_MAX)
        self.fp = BufferedReader(self.reader)

    def _close_conn(self) -> None:
        super()._close_conn()  # type: ignore[misc]  # of http.client
        self._open.close()


def _parts(url: str, scheme: str) -> tuple[str, str, int | None]:
    """The URL in short, host and port."""
    address = parse_address(url)
    if address is None:
        raise OperatorError(repr(url[:200]), ADDRESS_RULE, f"give {scheme}://HOST:PORT")
    if address.scheme != scheme:
        action = "add --tls FILE" if scheme == "http" else "leave --tls out, or give https://HOST:PORT"
        rule = "https goes with TLS" if scheme == "http" else "http goes without TLS"
        raise OperatorError(repr(url[:200]), rule, action)
    return url.removesuffix("/"), address.host, address.port
