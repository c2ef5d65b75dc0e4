"""The queue alone: order, bound, failures, in front of a writer that tests control."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import wait
from itertools import count

import pytest

from tidewarp.errors import InternalError, OperatorError, StoreFull
from tidewarp.store import Entry, Written
from tidewarp.store.groupcommit import GROUP_MAX, QUEUE_MAX, GroupCommit, Submission

ONE = (Entry(0x80, b""),)
TIMEOUT_S = 60  # of a test that hangs; nothing waits for it otherwise


class Disk:
    """A writer that may be held, and that may be full."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.open.set()
        self.entered = threading.Semaphore(0)
        self.full = False
        self.written: list[str] = []
        self.groups: list[int] = []

    def write(self, group: Sequence[Submission]) -> list[Written]:
        self.entered.release()
        assert self.open.wait(TIMEOUT_S)
        if self.full:
            raise StoreFull("disk", "full", "make room")
        self.groups.append(sum(len(one.entries) for one in group))
        self.written += [name for one in group for name in one.cursors]
        return [Written(1, 1, b"")] * len(group)


@pytest.fixture
def disk() -> Disk:
    return Disk()


def test_appends_of_one_thread_need_no_other(disk: Disk) -> None:
    """A process that only appends stays single-threaded, so it may fork."""
    commits = GroupCommit(disk.write)
    before = threading.active_count()
    for n in range(3):
        commits.append(ONE, {str(n): b""})
    assert threading.active_count() == before
    assert disk.written == ["0", "1", "2"]
    commits.close()


def test_an_append_comes_after_what_was_submitted_before(disk: Disk) -> None:
    """Also when the committer is in the middle of a commit."""
    commits = GroupCommit(disk.write)
    disk.open.clear()
    first = commits.submit(ONE, {"0": b""})
    assert disk.entered.acquire(timeout=TIMEOUT_S)
    later = [commits.submit(ONE, {str(n): b""}) for n in (1, 2)]
    appender = threading.Thread(target=commits.append, args=(ONE, {"3": b""}))
    appender.start()
    disk.open.set()
    appender.join(TIMEOUT_S)
    assert disk.written == ["0", "1", "2", "3"]
    assert all(one.done() for one in (first, *later))
    commits.close()


def test_many_threads_keep_each_ones_order(disk: Disk) -> None:
    """What one thread submits and appends is written in its order, whoever commits it."""
    commits = GroupCommit(disk.write)

    def produce(name: str) -> None:
        for n in range(50):
            (commits.append if n % 7 == 3 else commits.submit)(ONE, {f"{name}{n}": b""})

    threads = [threading.Thread(target=produce, args=(name,)) for name in "abcd"]
    for one in threads:
        one.start()
    for one in threads:
        one.join(TIMEOUT_S)
    commits.close()
    for name in "abcd":
        assert [one for one in disk.written if one[0] == name] == [f"{name}{n}" for n in range(50)]


def test_what_is_submitted_during_a_commit_is_the_next_one(disk: Disk) -> None:
    """And no commit waits for more: the committer is never asleep while something is queued."""
    commits = GroupCommit(disk.write)
    disk.open.clear()
    first = commits.submit(ONE, {})
    assert disk.entered.acquire(timeout=TIMEOUT_S)
    others = [commits.submit(ONE, {}) for _ in range(3)]
    waits: list[float | None] = []
    wait_for = commits._ready.wait_for

    def noted(predicate: Callable[[], object], timeout: float | None = None) -> object:
        waits.append(timeout)
        return wait_for(predicate, timeout)

    commits._ready.wait_for = noted  # type: ignore[method-assign, assignment]
    disk.open.set()
    wait([first, *others], TIMEOUT_S)
    commits.close()
    assert disk.groups == [1, 3]
    assert set(waits) == {None}


def test_groups_are_bounded_and_submissions_never_split(disk: Disk) -> None:
    commits = GroupCommit(disk.write)
    disk.open.clear()
    commits.submit(ONE, {})
    assert disk.entered.acquire(timeout=TIMEOUT_S)
    for size in (GROUP_MAX - 1, 1, 1, GROUP_MAX + 5, 1):
        commits.submit(ONE * size, {})
    disk.open.set()
    commits.close()
    assert disk.groups == [1, GROUP_MAX, 1, GROUP_MAX + 5, 1]


def test_a_full_queue_blocks_the_producer(disk: Disk) -> None:
    """65,536 entries wait at most; the next submission returns when the writer has taken some."""
    commits = GroupCommit(disk.write)
    disk.open.clear()
    commits.submit(ONE, {})
    assert disk.entered.acquire(timeout=TIMEOUT_S)
    commits.submit(ONE * QUEUE_MAX, {})
    through = threading.Event()

    def produce() -> None:
        commits.submit((), {"last": b""})  # cursors alone take a place too
        through.set()

    producer = threading.Thread(target=produce)
    producer.start()
    while not commits._space._waiters and not through.is_set():  # type: ignore[attr-defined]
        pass
    assert not through.is_set()
    disk.open.set()
    assert through.wait(TIMEOUT_S)
    producer.join(TIMEOUT_S)
    commits.close()
    assert disk.written == ["last"]


def test_behind_a_failure_everything_fails_until_its_caller_knows(disk: Disk) -> None:
    """No hole: whatever is submitted or appended before the first failure is looked at fails as well."""
    commits = GroupCommit(disk.write)
    disk.open.clear()
    disk.full = True
    first = commits.submit(ONE, {"0": b""})
    assert disk.entered.acquire(timeout=TIMEOUT_S)
    second = commits.submit(ONE, {"1": b""})  # queued behind the one that is about to fail
    disk.open.set()
    assert not wait([first, second], TIMEOUT_S).not_done  # which does not look at the outcome
    disk.full = False
    third = commits.submit(ONE, {"2": b""})
    with pytest.raises(StoreFull, match="hole"):
        commits.append(ONE, {"3": b""})
    assert isinstance(third.exception(), StoreFull)  # looked at, but not the first
    fourth = commits.submit(ONE, {"4": b""})
    assert isinstance(fourth.exception(), StoreFull)
    with pytest.raises(StoreFull, match="disk"):
        first.result()
    fifth = commits.submit(ONE, {"5": b""})
    assert fifth.result(TIMEOUT_S)
    with pytest.raises(StoreFull, match="hole"):
        second.result()
    commits.close()
    assert disk.written == ["5"]


def test_who_appends_sees_its_failure_at_once(disk: Disk) -> None:
    commits = GroupCommit(disk.write)
    disk.full = True
    with pytest.raises(StoreFull, match="disk"):
        commits.append(ONE, {})
    disk.full = False
    commits.append(ONE, {"1": b""})
    commits.close()
    assert disk.written == ["1"]


def test_a_queued_submission_cannot_be_cancelled(disk: Disk) -> None:
    commits = GroupCommit(disk.write)
    disk.open.clear()
    futures = [commits.submit(ONE, {str(n): b""}) for n in range(3)]
    assert not any(one.cancel() for one in futures)
    disk.open.set()
    commits.close()
    assert disk.written == ["0", "1", "2"]


def test_a_callback_may_append(disk: Disk) -> None:
    commits = GroupCommit(disk.write)
    done = threading.Event()

    def go_on(_: object) -> None:
        commits.append(ONE, {"1": b""})
        done.set()

    commits.submit(ONE, {"0": b""}).add_done_callback(go_on)
    assert done.wait(TIMEOUT_S)
    commits.close()
    assert disk.written == ["0", "1"]


def test_an_interrupted_commit_is_told_to_all_and_raised_to_its_thread(disk: Disk) -> None:
    """Ctrl-C in the thread that commits for others."""
    numbers = count()

    def write(group: Sequence[Submission]) -> list[Written]:
        if next(numbers) == 0:
            raise KeyboardInterrupt
        return disk.write(group)

    commits = GroupCommit(write)
    with pytest.raises(KeyboardInterrupt):
        commits.append(ONE, {"0": b""})
    commits.append(ONE, {"1": b""})
    commits.close()
    assert disk.written == ["1"]


def test_whose_submission_another_threads_interrupt_took_is_told(disk: Disk) -> None:
    """The appender that commits for others is interrupted: theirs fail, and nothing follows before they know."""
    interrupted = False

    def write(group: Sequence[Submission]) -> list[Written]:
        nonlocal interrupted
        if len(group) == 2 and not interrupted:
            interrupted = True
            raise KeyboardInterrupt
        return disk.write(group)

    commits = GroupCommit(write)
    other = commits._enqueue(ONE, {"0": b""})  # a submission that the committer thread has not taken yet
    with pytest.raises(KeyboardInterrupt):
        commits.append(ONE, {"1": b""})
    with pytest.raises(OperatorError, match="hole"):
        commits.append(ONE, {"2": b""})
    with pytest.raises(OperatorError, match="interrupted by KeyboardInterrupt"):
        other.result()
    commits.append(ONE, {"3": b""})
    commits.close()
    assert disk.written == ["3"]


def test_closed_is_closed(disk: Disk) -> None:
    commits = GroupCommit(disk.write)
    commits.close()
    commits.close()
    for call in (commits.append, commits.submit):
        with pytest.raises(InternalError, match="closed"):
            call(ONE, {})
