"""Letters between ranks, in batches: what one message costs decides, so many letters share one.

A batch is the number of a GVT round (U64, its colour), how many letters it holds (U64), and the letters.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Iterator

import numpy as np

from tidewarp.errors import InternalError
from tidewarp.kernel.shell.mpi.world import Ranks

__all__ = ["BATCH_BYTES", "COMMITS", "LETTERS", "Post"]

BATCH_BYTES = 65_536
OUTSTANDING_MOST = 8  # batches to one rank that have not been taken yet
WAITING_MOST = 32  # more batches, which wait here: then nothing fits
LETTERS, COMMITS = 1, 2  # tags
_HEAD = struct.Struct("<QQ")


class _Box:
    """What is on its way to one rank."""

    __slots__ = ("letters", "open", "sending", "waiting")

    def __init__(self) -> None:
        self.open = bytearray(_HEAD.size)
        self.letters = 0  # in the open batch
        self.waiting: deque[bytearray] = deque()
        self.sending: deque[tuple[object, bytearray]] = deque()


class Post:
    """Sends and receives the letters of one rank; counts them by colour, so that a GVT round knows when none is missing."""

    def __init__(self, ranks: Ranks) -> None:
        self.colour = 0
        self.accepted = np.zeros(ranks.size, np.uint64)  # letters for each rank so far
        self.received = 0  # letters of all ranks, all colours
        self._early = [0, 0]  # of these: of the current colour, and of the next, which another rank may have already
        self.colours = [0] * ranks.size  # of what came last from each rank
        self.commits = 0  # given to add_commit
        self.commits_taken = 0  # by poll_commits
        self._ranks = ranks
        self._comm = ranks.comm
        self._commits: deque[tuple[object, bytes]] = deque()  # on their way to rank 0
        self._own_commits: deque[bytes] = deque()
        self._boxes = [_Box() for _ in range(ranks.size)]
        self._forget_others()

    def _forget_others(self) -> None:
        """Receive what a run before this one, which may have failed, has left on its way."""
        while True:
            for tag in (LETTERS, COMMITS):
                for _ in self._arrived(tag):
                    pass
            sent, received = self._ranks.total([self._ranks.sent, self._ranks.received])
            if sent == received:
                self._ranks.unfinished = [self._commits, *(box.sending for box in self._boxes)]
                return

    @property
    def received_before(self) -> int:
        """Letters received that were accepted before the current colour began on their rank."""
        return self.received - sum(self._early)

    def recolour(self) -> None:
        """From here on letters have the next colour."""
        for box in self._boxes:
            self._close(box)
        self.colour += 1
        self._early = [self._early[1], 0]

    def has_room(self, rank: int) -> bool:
        """Whether a letter more to ``rank`` would leave soon."""
        return len(self._boxes[rank].waiting) < WAITING_MOST

    def add(self, rank: int, letters: bytes | memoryview, count: int = 1) -> None:
        """Accept letters for ``rank``; they leave when a batch is full, or with :meth:`flush`."""
        box = self._boxes[rank]
        box.open += letters
        box.letters += count
        self.accepted[rank] += np.uint64(count)
        if len(box.open) >= BATCH_BYTES:
            self._close(box)
            self._send(rank, box)

    def flush(self) -> None:
        """Let everything leave that is allowed to."""
        for rank, box in enumerate(self._boxes):
            if box.letters or box.waiting:
                self._close(box)
                self._send(rank, box)

    @property
    def is_empty(self) -> bool:
        """Everything that was accepted has left this rank."""
        return not any(box.letters or box.waiting or box.sending for box in self._boxes)

    def poll(self) -> Iterator[tuple[int, memoryview]]:
        """Let waiting batches go on, and give those that have arrived: their rank and their letters."""
        for rank, box in enumerate(self._boxes):
            if box.sending:
                self._send(rank, box)
        for rank, data in self._arrived(LETTERS):
            yield rank, self._open_batch(rank, data)

    def add_commit(self, data: bytes) -> None:
        """Send rank 0 what this one has committed in a round."""
        self.commits += 1
        if self._ranks.rank == 0:
            self._own_commits.append(data)
            return
        while self._commits and self._commits[0][0].Test():  # type: ignore[attr-defined]
            self._commits.popleft()
        self._commits.append((self._comm.Isend(data, 0, COMMITS), data))
        self._ranks.sent += 1

    def poll_commits(self) -> Iterator[bytes | bytearray]:
        """What has arrived at rank 0 of :meth:`add_commit`, its own included."""
        while self._own_commits:
            self.commits_taken += 1
            yield self._own_commits.popleft()
        for _, data in self._arrived(COMMITS):
            self.commits_taken += 1
            yield data

    def _arrived(self, tag: int) -> Iterator[tuple[int, bytearray]]:
        while (found := self._ranks.inquiry.take(tag)) is not None:
            self._ranks.received += 1
            yield found

    def _open_batch(self, rank: int, data: bytearray) -> memoryview:
        colour, count = _HEAD.unpack_from(data)
        if not self.colour - 1 <= colour <= self.colour + 1:
            raise InternalError(
                f"a batch of round {colour} in round {self.colour}", "they overlap by one", "please report this"
            )
        self.received += count
        self.colours[rank] = colour
        if colour >= self.colour:
            self._early[colour - self.colour] += count
        return memoryview(data)[_HEAD.size :]

    def _close(self, box: _Box) -> None:
        if box.letters:
            _HEAD.pack_into(box.open, 0, self.colour, box.letters)
            box.waiting.append(box.open)
            box.open, box.letters = bytearray(_HEAD.size), 0

    def _send(self, rank: int, box: _Box) -> None:
        while box.sending and box.sending[0][0].Test():  # type: ignore[attr-defined]
            box.sending.popleft()
        while box.waiting and len(box.sending) < OUTSTANDING_MOST:
            batch = box.waiting.popleft()
            box.sending.append((self._comm.Isend(batch, rank, LETTERS), batch))
            self._ranks.sent += 1
