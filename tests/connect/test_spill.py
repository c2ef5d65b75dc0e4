"""The spill file: a queue on disk that gives back what it was given, in order, and never grows without end."""

from __future__ import annotations

import errno
import os
import stat
from collections import deque
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidewarp.codec import pack
from tidewarp.connect import spill
from tidewarp.connect.contract import Output
from tidewarp.connect.spill import SpillFile
from tidewarp.errors import OperatorError


def output(n: int, value: bytes = b"") -> Output:
    return Output(f"{n:016x}-00000000", n, f"key {n}", value or pack(n), f"cause {n}", "root", n, "telemetry")


@pytest.mark.parametrize("taken_bytes", [1, 300, 1 << 24])
@given(steps=st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6), st.integers(1, 400)), max_size=30))
def test_it_is_a_queue(
    tmp_path_factory: pytest.TempPathFactory, taken_bytes: int, steps: list[tuple[int, int, int]]
) -> None:
    """Against a deque, whatever the sizes, and wherever what waits is moved to the beginning of the file."""
    path = tmp_path_factory.mktemp("spill") / "x"
    model: deque[Output] = deque()
    n = 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spill, "_TAKEN_BYTES", taken_bytes)
        patch.setattr(spill, "_COPY_BYTES", 64)
        file = SpillFile(path)
        for puts, takes, size in steps:
            fresh = [output(n + k, bytes([k]) * size) for k in range(puts)]
            n += puts
            model += fresh
            file.append(fresh)
            count = min(takes, len(model))
            assert file.take(count) == [model.popleft() for _ in range(count)]
        assert not n or file.take(len(model)) == list(model)
        if n:
            assert path.stat().st_size == 0, "an empty queue needs no room"
        file.close()


def test_a_queue_that_never_empties_does_not_grow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A slow sink for days: the file holds what waits, and at most as much again or a fixed amount."""
    monkeypatch.setattr(spill, "_TAKEN_BYTES", 10_000)
    file = SpillFile(tmp_path / "x")
    file.append([output(n, bytes(100)) for n in range(20)])
    largest = 0
    for n in range(20, 2_000):
        file.append([output(n, bytes(100))])
        assert file.take(1) == [output(n - 20, bytes(100))]
        largest = max(largest, file.path.stat().st_size)
    assert largest < 20_000
    file.close()


def test_closing_removes_the_file_and_may_be_done_twice(tmp_path: Path) -> None:
    """Before anything was put in as well."""
    file = SpillFile(tmp_path / "x")
    file.close()
    file.append([output(0)])
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600, "outputs are nobody else's business"
    file.close()
    file.close()
    assert not file.path.exists()


def test_what_an_earlier_life_left_is_not_read(tmp_path: Path) -> None:
    """The journal makes it again."""
    path = tmp_path / "x"
    path.write_bytes(b"torn")
    file = SpillFile(path)
    file.append([output(1)])
    assert file.take(1) == [output(1)]
    file.close()


def test_a_folder_that_takes_no_file_is_the_operators_affair(tmp_path: Path) -> None:
    """The error names the file and where else it could be."""
    with pytest.raises(OperatorError, match=r"no such file or directory.*TIDEWARP_SPILL_DIR"):
        SpillFile(tmp_path / "no" / "x").append([output(0)])


def test_a_file_that_could_not_be_made_gives_nothing_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk was full before there was a file, and outputs were asked for before anybody heard of it."""

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    file = SpillFile(tmp_path / "x")
    with monkeypatch.context() as patch:
        patch.setattr(os, "open", full)
        with pytest.raises(OSError, match="No space left"):
            file.append([output(0)])
    assert file.take(1) == []
    file.close()


def test_a_full_disk_takes_nothing_of_what_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was put in before is given back; of what failed nothing is, though a part of it was written."""
    write = os.pwrite
    file = SpillFile(tmp_path / "x")
    file.append([output(0), output(1)])

    def full(fd: int, data: bytes, at: int) -> int:
        if len(data) > 10:
            return write(fd, bytes(data[:10]), at)
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr("tidewarp.connect.spill.os.pwrite", full)
    with pytest.raises(OSError, match="full"):
        file.append([output(2), output(3)])
    monkeypatch.undo()
    assert file.take(1) == [output(0)]
    file.append([output(4)])
    assert file.take(5) == [output(1), output(4)]
    file.close()
