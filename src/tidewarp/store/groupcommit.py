"""Group commit: many submissions, one transaction, one fsync; the order of submission is the order of records.

An fsync costs what a thousand inserts cost, so commits decide throughput. Whoever appends commits in its own
thread, the queue before it included (leader and followers); submissions that nobody waits for are
committed by a thread that begins with the first of them. It waits for no more to come: what is submitted while it
writes is its next group. A process that only appends therefore has one thread and may fork.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from typing import TypeAlias

from tidewarp.errors import InternalError, OperatorError, TidewarpError
from tidewarp.store.contract import Entry, Written

__all__ = ["GROUP_MAX", "QUEUE_MAX", "GroupCommit", "Submission"]

GROUP_MAX = 1_000
QUEUE_MAX = 65_536


class Submission(Future[Written]):
    """Entries and cursors on their way. Reading the outcome tells the queue that its caller knows it."""

    def __init__(
        self, entries: Sequence[Entry], cursors: Mapping[str, bytes], on_seen: Callable[[Submission], None]
    ) -> None:
        super().__init__()
        self.entries = entries
        self.cursors = cursors
        self.weight = max(1, len(entries))  # cursors alone take a place too, or the queue had no bound
        self._on_seen = on_seen
        self.set_running_or_notify_cancel()  # from here on cancel() has no effect: it would leave a hole

    def result(self, timeout: float | None = None) -> Written:
        """As Future.result."""
        try:
            return super().result(timeout)
        finally:
            self.tell()

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """As Future.exception."""
        try:
            return super().exception(timeout)
        finally:
            self.tell()

    def tell(self) -> None:
        """Say that the caller knows the outcome, if there is one."""
        if self.done():
            self._on_seen(self)


Write: TypeAlias = Callable[[Sequence[Submission]], Sequence[Written]]
"""Make a group durable in one transaction, or raise with nothing of it written."""


class GroupCommit:
    """A bounded queue of submissions in front of ``write``, which is never called by two threads at once.

    Two locks: ``_turn`` is held while a group is written, ``_mutex`` (inside it, briefly) guards the queue. ``_turn`` is
    re-entrant because a future's callback may append.
    """

    def __init__(self, write: Write) -> None:
        self._write = write
        self._turn = threading.RLock()
        self._mutex = threading.Lock()
        self._ready = threading.Condition(self._mutex)
        self._space = threading.Condition(self._mutex)
        self._queue: deque[Submission] = deque()
        self._queued = 0  # weight of the queue
        self._refusal: tuple[Submission, TidewarpError] | None = None  # the first that failed, until it is seen
        self._closing = False
        self._thread: threading.Thread | None = None

    def append(self, entries: Sequence[Entry], cursors: Mapping[str, bytes]) -> Written:
        """Queue, and commit groups in this thread until this one is durable."""
        submission = self._enqueue(entries, cursors)
        try:
            while not submission.done():
                self._commit_next()
        except BaseException:
            submission.tell()  # the caller is told by what is raised
            raise
        return submission.result()

    def submit(self, entries: Sequence[Entry], cursors: Mapping[str, bytes]) -> Submission:
        """Queue for the committer thread."""
        submission = self._enqueue(entries, cursors)
        with self._mutex:
            if self._thread is None and not self._closing:
                self._thread = threading.Thread(target=self._run, name="tidewarp-journal", daemon=True)
                self._thread.start()
            self._ready.notify()
        return submission

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Be the one that writes until the block ends. What is queued is committed first; what comes later waits.

        Raises:
            InternalError: the queue is closed.
            TidewarpError: an earlier submission failed, and its caller has not looked: as for ``append``.
        """
        with self._turn:
            while self._queue:
                self._commit_next()
            with self._mutex:
                if self._closing:
                    raise InternalError("a transaction", "the store is closed", "open it again")
                if self._refusal is not None:
                    raise self._refusal[1]
            yield

    def close(self) -> None:
        """Commit what is queued, end the thread. Later calls are refused."""
        with self._mutex:
            self._closing = True
            self._ready.notify_all()
            self._space.notify_all()
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()
        while self._queue:
            self._commit_next()

    def _enqueue(self, entries: Sequence[Entry], cursors: Mapping[str, bytes]) -> Submission:
        submission = Submission(entries, cursors, self._seen)
        with self._mutex:
            # One that is larger than the bound goes when the queue is empty.
            while self._queued and self._queued + submission.weight > QUEUE_MAX and not self._closing:
                self._space.wait()
            if self._closing:
                raise InternalError("a submission", "the store is closed", "open it again")
            if self._refusal is not None:
                submission.set_exception(self._refusal[1])
            else:
                self._queue.append(submission)
                self._queued += submission.weight
        return submission

    def _run(self) -> None:
        while True:
            with self._mutex:
                self._ready.wait_for(lambda: self._queue or self._closing)
                if not self._queue:
                    return
            self._commit_next()

    def _commit_next(self) -> None:
        with self._turn:
            group = self._take()
            if not group:
                return
            try:
                outcomes = self._write(group)
            except BaseException as error:
                self._fail(group, error)
                if not isinstance(error, Exception):
                    raise
                return
            for submission, appended in zip(group, outcomes, strict=True):
                submission.set_result(appended)

    def _take(self) -> list[Submission]:
        group: list[Submission] = []
        weight = 0
        with self._mutex:
            while self._queue and (not group or weight + self._queue[0].weight <= GROUP_MAX):
                group.append(self._queue.popleft())
                weight += group[-1].weight
            self._queued -= weight
            self._space.notify_all()
        return group

    def _fail(self, group: Sequence[Submission], error: BaseException) -> None:
        refused = _refused(error)
        with self._mutex:
            followers = list(self._queue)
            self._queue.clear()
            self._queued = 0
            self._refusal = group[0], refused
            self._space.notify_all()
        for submission in group:
            submission.set_exception(error if isinstance(error, Exception) else _interrupted(error))
        for submission in followers:
            submission.set_exception(refused)

    def _seen(self, submission: Submission) -> None:
        with self._mutex:
            if self._refusal is not None and self._refusal[0] is submission:
                self._refusal = None


def _refused(error: BaseException) -> TidewarpError:
    """What those behind the first failure get: of its class, so that an operator does the right thing."""
    if isinstance(error, TidewarpError):
        return type(error)(error.value, f"{error.rule} (behind a hole nothing is written)", error.action)
    rule = f"an earlier one failed, and behind a hole nothing is written ({error!r})"
    return OperatorError("a submission", rule, "mend its cause, submit again from there")


def _interrupted(error: BaseException) -> TidewarpError:
    return OperatorError(
        "a commit", f"interrupted by {type(error).__name__}: it may be durable or not", "look at the journal's size"
    )
