"""Checkpoints in a folder: written whole or not at all, the newest and the one before it kept.

    MANIFEST                         which files are the checkpoints, newest first, and a digest of these lines
    TICK-DIGEST.twc                  a whole checkpoint
    TICK-DIGEST.twd                  what changed since a whole one, where that is less than half of it

A file is written under another name, made durable and renamed; the manifest comes last. So a process that dies at any
byte leaves the checkpoints that the manifest named before, and a file that rots is refused by the digest at its end.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

from tidewarp.clocks.pacing import Clock
from tidewarp.errors import CheckpointRefused, OperatorError, StoreFailed, StoreFull
from tidewarp.kernel.checkpoints import (
    DELTAS_MAX,
    OF_ANOTHER_RUN,
    apply_delta,
    base_of,
    decode,
    delta,
    digest_of,
    interval_ticks,
    young_interval_s,
)
from tidewarp.kernel.model import Model

__all__ = ["BETWEEN_FAILURES_S", "CheckpointFiles", "Schedule", "load_checkpoint", "tick_of", "whole_checkpoints"]

BETWEEN_FAILURES_S = 86_400.0
"""Taken as the mean time between failures until some have been seen: a day."""

MANIFEST = "MANIFEST"
_LABEL = "TWCKPTS1"
_SUFFIXES = (".twc", ".twd")
_KEPT = 2


class CheckpointFiles:
    """The checkpoints of one run in ``folder``, which is made where it is missing; ``resume`` is what the run goes on from.

    Raises:
        OperatorError: the folder holds checkpoints of a run that this one does not go on from, and would remove them.
        CheckpointRefused: its manifest is damaged.
        StoreFull, StoreFailed: it cannot be made.
    """

    def __init__(self, folder: Path, model: Model, resume: Path | None = None) -> None:
        before = _entries_to_keep(folder, resume)
        if before is None:
            action = f"resume with --resume {folder}, or name an empty folder"
            raise OperatorError(f"checkpoint folder {folder}", "it holds the checkpoints of another run", action)
        self.folder = folder
        self._model = model
        self._base: bytes | None = None  # the last one that was written whole
        self._deltas = 0
        self._kept = before
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _failure(folder, error) from error

    def save(self, tick: int, data: bytes) -> Path:
        """Make a checkpoint durable, then forget all but the one before it; returns its file.

        Raises:
            StoreFull: no room; the checkpoints from before are as they were.
            StoreFailed: another I/O error.
        """
        content, suffix = self._smallest(data)
        name = f"{tick:019d}-{digest_of(data)[:16]}.{suffix}"
        kept = [name, *(other for other in self._kept if other != name)][:_KEPT]
        try:
            _write(self.folder / name, content)
            _write(self.folder / MANIFEST, _manifest(kept))
            self._kept = kept
            self._forget()
        except OSError as error:
            raise _failure(self.folder, error) from error
        return self.folder / name

    def _smallest(self, data: bytes) -> tuple[bytes, str]:
        if self._base is not None and self._deltas < DELTAS_MAX:
            change = delta(self._model, self._base, data)
            if 2 * len(change) < len(data):
                self._deltas += 1
                return change, "twd"
        self._base, self._deltas = data, 0
        return data, "twc"

    def _forget(self) -> None:
        """Remove what neither the manifest names nor a delta of it is made against."""
        needed = {*self._kept, MANIFEST}
        for name in self._kept:
            if name.endswith(".twd"):
                base = base_of(_read(self.folder / name))[:16]
                needed |= {file.name for file in self.folder.glob(f"*-{base}.twc")}
        for file in self.folder.iterdir():
            if file.name not in needed and file.suffix in (*_SUFFIXES, ".new"):
                file.unlink()
        _sync(self.folder)


def load_checkpoint(source: Path, model: Model) -> bytes:
    """The checkpoint in a file, or the newest in a folder.

    Raises:
        OperatorError: no such file or folder.
        CheckpointRefused: it is damaged, or of another model; one that is whole is named, if there is any.
    """
    if not source.exists():
        raise OperatorError(f"{source}", "no such file or folder", "name where --checkpoint wrote")
    if not source.is_dir():
        return _load_file(source, model)
    try:
        return _load_file(source / _entries(source)[0], model)
    except CheckpointRefused as error:
        if error.action == OF_ANOTHER_RUN:
            raise
        whole = next(whole_checkpoints(source, model), None)
        action = "no other one is whole: start the run anew" if whole is None else f"resume with --resume {whole}"
        raise CheckpointRefused(error.value, error.rule, action) from error


def whole_checkpoints(folder: Path, model: Model) -> Iterator[Path]:
    """The files of ``folder`` that a run can go on from, newest first."""
    for file in sorted([*folder.glob("*.twc"), *folder.glob("*.twd")], reverse=True):
        with contextlib.suppress(CheckpointRefused):
            _load_file(file, model)
            yield file


def tick_of(file: Path) -> int:
    """The tick of the checkpoint in a file, by its name."""
    return int(file.name.partition("-")[0])


def _load_file(file: Path, model: Model) -> bytes:
    try:
        data = _read(file)
        if file.suffix == ".twd":
            data = apply_delta(model, _base_of(file, data), data)
        decode(model, data)
    except OSError as error:
        raise CheckpointRefused(f"{file}", f"it cannot be read ({error.strerror})", "use a whole checkpoint") from error
    except CheckpointRefused as error:
        raise CheckpointRefused(f"{file}", error.rule, error.action) from error
    if digest_of(data)[:16] not in file.name and file.suffix == ".twd":
        raise CheckpointRefused(f"{file}", f"it gives checkpoint {digest_of(data)[:16]}", "use a whole checkpoint")
    return data


def _read(file: Path) -> bytes:
    """What a regular file holds; another kind of file might never end, or never begin.

    Raises:
        OSError: it is no regular file, or cannot be read.
    """
    if not stat.S_ISREG(file.stat().st_mode):
        raise OSError(errno.EINVAL, "it is no regular file")
    return file.read_bytes()


def _base_of(file: Path, change: bytes) -> bytes:
    for base in file.parent.glob(f"*-{base_of(change)[:16]}.twc"):
        return _read(base)
    raise CheckpointRefused(f"{file}", f"its base {base_of(change)[:16]} is not beside it", "use a whole checkpoint")


def _manifest(names: list[str]) -> bytes:
    body = "\n".join([_LABEL, *names, ""]).encode()
    return body + sha256(body).hexdigest().encode() + b"\n"


def _entries(folder: Path) -> list[str]:
    """The names in the manifest, newest first.

    Raises:
        CheckpointRefused: it is missing or damaged.
    """
    file = folder / MANIFEST
    try:
        lines = _read(file).decode().split("\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise CheckpointRefused(f"{file}", f"it cannot be read ({reason})", "name a checkpoint file") from error
    names = lines[1:-2]
    if not names or _manifest(names).decode() != "\n".join(lines):
        raise CheckpointRefused(f"{file}", "its last line is not the digest of the others", "name a checkpoint file")
    return names


def _entries_to_keep(folder: Path, resume: Path | None) -> list[str] | None:
    """The names in ``folder`` that a run from ``resume`` goes on from, newest first; None if it holds those of another run."""
    if resume is not None and resume.resolve() == folder.resolve():
        return _entries(folder)
    if resume is not None and resume.parent.resolve() == folder.resolve():
        return [resume.name]
    is_used = (folder / MANIFEST).exists() or any(any(folder.glob(f"*{suffix}")) for suffix in _SUFFIXES)
    return None if is_used else []


def _write(file: Path, content: bytes) -> None:
    """Make ``file`` hold ``content``, durably, or leave it as it was."""
    new = file.with_name(f"{file.name}.new")
    try:
        with open(new, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(new, file)
    except BaseException:
        with contextlib.suppress(OSError):  # what went wrong is what is said; a draft would keep a full disk full
            new.unlink()
        raise
    _sync(file.parent)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _failure(folder: Path, error: OSError) -> OperatorError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StoreFull(f"checkpoint in {folder}", "the disk is full", "free some space; the one before is as it was")
    return StoreFailed(f"checkpoint in {folder}", f"{error.strerror}", "mend it, or name another folder")


class Schedule:
    """When the next checkpoint is due: every so many ticks, or by Young's formula with what was measured."""

    def __init__(self, every: int | None, trace_interval: int, clock: Clock) -> None:
        self._every = every and interval_ticks(1.0, every, trace_interval)
        self._trace_interval = trace_interval
        self._clock = clock
        self._tick = 0
        self._ended_s = self._began_s = clock.now()

    def first(self, tick: int) -> int:
        """The tick of the first checkpoint of a run that starts at ``tick``."""
        self._tick = tick
        every = self._every or self._trace_interval
        return (tick // every + 1) * every

    def begin(self) -> None:
        """A checkpoint is due now."""
        self._began_s = self._clock.now()

    def next(self, tick: int) -> int:
        """The tick after the one of ``tick``, which is durable now."""
        ended_s = self._clock.now()
        ran_s, cost_s = self._began_s - self._ended_s, ended_s - self._began_s
        ticks_per_s = (tick - self._tick) / max(ran_s, 1e-9)
        self._ended_s, self._tick = ended_s, tick
        if self._every is not None:
            return tick + self._every
        return tick + interval_ticks(young_interval_s(cost_s, BETWEEN_FAILURES_S), ticks_per_s, self._trace_interval)
