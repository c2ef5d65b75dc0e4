"""Sockets that cannot be held for ever: a reader with a deadline and a bound on what it takes."""

from __future__ import annotations

import io
import socket

from tidewarp.clocks.pacing import Clock

__all__ = ["MINIMUM_RATE", "DeadlineReader", "TooMuch", "send_all", "transfer_s"]

MINIMUM_RATE = 64 << 10
"""Bytes per second, below which a peer is let go."""

_PIECE_BYTES = 64 << 10


class TooMuch(OSError):
    """More bytes came than there is room for."""


class DeadlineReader(io.RawIOBase):
    """Reads a socket until a deadline (host seconds) and a number of bytes, both set by :meth:`allow`.

    A read beyond the one raises TimeoutError, beyond the other :class:`TooMuch`.
    """

    def __init__(self, connection: socket.socket, clock: Clock) -> None:
        super().__init__()
        self._connection = connection
        self._clock = clock
        self._deadline_s = 0.0
        self._left = 0

    def allow(self, seconds: float, bytes_max: int | None = None) -> None:
        """From now on so long, and so much; None: as much as was left."""
        self._deadline_s = self._clock.now() + seconds
        if bytes_max is not None:
            self._left = bytes_max

    def readable(self) -> bool:
        """Yes."""
        return True

    def readinto(self, buffer: memoryview | bytearray) -> int:  # type: ignore[override]  # any buffer would do
        """What has come, into ``buffer``; 0 at the end."""
        seconds = self._deadline_s - self._clock.now()
        if seconds <= 0:
            raise TimeoutError("the other side was too slow")
        if not self._left:
            raise TooMuch("the other side sends more than it may")
        self._connection.settimeout(seconds)
        size = self._connection.recv_into(memoryview(buffer)[: self._left])
        self._left -= size
        return size


def transfer_s(size: int) -> float:
    """How long ``size`` bytes may take: ten seconds, and at the minimum rate."""
    return 10.0 + size / MINIMUM_RATE


def send_all(connection: socket.socket, data: bytes) -> None:
    """Send ``data``, each piece of it at no less than the minimum rate. Raises TimeoutError, OSError."""
    with memoryview(data) as view:
        for at in range(0, len(view), _PIECE_BYTES):
            piece = view[at : at + _PIECE_BYTES]
            connection.settimeout(transfer_s(len(piece)))
            connection.sendall(piece)
