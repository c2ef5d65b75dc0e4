"""A folder of checkpoints: whatever happens to it, what it gives is whole, or it says what is not."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from tidewarp.errors import CheckpointRefused, OperatorError, StoreFailed, StoreFull
from tidewarp.kernel import Context, Engine, LogicalProcess, Model, i64, on, run
from tidewarp.kernel.checkpoints import DELTAS_MAX, digest_of
from tidewarp.kernel.shell import checkpoint_files
from tidewarp.kernel.shell.checkpoint_files import (
    CheckpointFiles,
    Schedule,
    load_checkpoint,
    tick_of,
    whole_checkpoints,
)

END = 400
BLOCK = 10


class Baton(NamedTuple):
    """What the runner carries."""

    laps: i64


class Runner(LogicalProcess):
    """One of many is touched at a time, so most rows stay as they are."""

    laps: i64

    @on(Baton)
    def take(self, now: int, baton: Baton, ctx: Context) -> None:
        """Run one lap and hand over."""
        self.laps = baton.laps
        ctx.emit(baton)
        ctx.send((ctx.lp + 1) % ctx.n_lps, BLOCK, Baton(baton.laps + 1))

    def start(self, ctx: Context) -> None:
        """The first has the baton."""
        if ctx.lp == 0:
            ctx.send(ctx.lp, 0, Baton(1))


def relay(runners: int = 60) -> Model:
    """A relay race."""
    model = Model("relay", trace_interval=BLOCK)
    model.add(Runner, runners, path="runner")
    return model


def checkpoints(count: int, model: Model) -> list[tuple[int, bytes]]:
    """(tick, bytes) of successive blocks."""
    with Engine(model, tier="python") as engine:
        pairs = []
        for place in range(count):
            data = engine.checkpoint()
            pairs.append((place * BLOCK, data))
            engine.advance(place * BLOCK)
            engine.outputs()
        return pairs


def names(folder: Path) -> list[str]:
    """Ticks and kinds of the files there, without the manifest."""
    return sorted(f"{tick_of(file)}{file.suffix}" for file in folder.iterdir() if file.name != "MANIFEST")


def test_the_newest_and_the_one_before_are_kept(tmp_path: Path) -> None:
    """Whole ones where all changes; a folder is made where there is none."""
    model = relay(2)
    files = CheckpointFiles(tmp_path / "new" / "folder", model)
    for tick, data in checkpoints(4, model):
        file = files.save(tick, data)
        assert load_checkpoint(tmp_path / "new" / "folder", model) == load_checkpoint(file, model) == data
    assert names(files.folder) == ["20.twc", "30.twc"]


def test_deltas_are_written_where_they_are_small_and_rebased(tmp_path: Path) -> None:
    """A base and at most DELTAS_MAX deltas against it; the base stays as long as a delta that is kept needs it."""
    model = relay()
    files = CheckpointFiles(tmp_path, model)
    pairs = checkpoints(DELTAS_MAX + 3, model)
    kinds = []
    for tick, data in pairs:
        kinds.append(files.save(tick, data).suffix)
        assert load_checkpoint(tmp_path, model) == data
    assert kinds == [".twc", *[".twd"] * DELTAS_MAX, ".twc", ".twd"]
    last = pairs[-1][0]
    assert names(tmp_path) == [f"{last - BLOCK}.twc", f"{last}.twd"]


def test_the_file_of_a_folder_taken_up_again_is_no_base(tmp_path: Path) -> None:
    """Another process goes on with the folder: it writes a whole one first, and forgets none that is needed."""
    model = relay()
    pairs = checkpoints(4, model)
    for half, resume in ((pairs[:2], None), (pairs[2:], tmp_path)):
        files = CheckpointFiles(tmp_path, model, resume)
        for tick, data in half:
            files.save(tick, data)
    assert names(tmp_path) == ["20.twc", "30.twd"]
    assert load_checkpoint(tmp_path, model) == pairs[-1][1]


def test_a_checkpoint_torn_at_every_byte_is_refused_and_the_older_one_offered(tmp_path: Path) -> None:
    """The newest file cut to every length: never loaded, and the error names the file to resume with."""
    model = relay(1)
    files = CheckpointFiles(tmp_path, model)
    pairs = checkpoints(2, model)
    older, newest = (files.save(tick, data) for tick, data in pairs)
    for size in range(len(pairs[1][1])):
        newest.write_bytes(pairs[1][1][:size])
        with pytest.raises(CheckpointRefused, match=f"resume with --resume {older}"):
            load_checkpoint(tmp_path, model)
    assert load_checkpoint(older, model) == pairs[0][1]
    assert list(whole_checkpoints(tmp_path, model)) == [older]
    older.unlink()
    with pytest.raises(CheckpointRefused, match="start the run anew"):
        load_checkpoint(tmp_path, model)


def test_a_delta_without_its_base_is_refused(tmp_path: Path) -> None:
    """The base removed, or another checkpoint in its place."""
    model = relay()
    files = CheckpointFiles(tmp_path, model)
    pairs = checkpoints(2, model)
    base, change = (files.save(tick, data) for tick, data in pairs)
    base.write_bytes(pairs[1][1])
    with pytest.raises(CheckpointRefused, match="made for base"):
        load_checkpoint(change, model)
    base.unlink()
    with pytest.raises(CheckpointRefused, match="not beside it"):
        load_checkpoint(tmp_path, model)


def test_a_damaged_manifest_is_refused_and_what_is_whole_offered(tmp_path: Path) -> None:
    """Cut anywhere, altered, or missing."""
    model = relay(1)
    files = CheckpointFiles(tmp_path, model)
    (tick, data), *_ = checkpoints(1, model)
    file = files.save(tick, data)
    manifest = tmp_path / "MANIFEST"
    content = manifest.read_bytes()
    for wrong in (*(content[:size] for size in range(len(content))), content.replace(b"twc", b"twd"), b"\xff" * 80):
        manifest.write_bytes(wrong)
        with pytest.raises(CheckpointRefused, match=f"resume with --resume {file}"):
            load_checkpoint(tmp_path, model)
    manifest.unlink()
    with pytest.raises(CheckpointRefused, match=f"resume with --resume {file}"):
        load_checkpoint(tmp_path, model)


def test_a_folder_or_file_that_is_not_there_is_bad_input(tmp_path: Path) -> None:
    """Exit code 2, and a file that is no checkpoint is refused."""
    with pytest.raises(OperatorError, match="no such file") as caught:
        load_checkpoint(tmp_path / "nowhere", relay())
    assert caught.value.exit_code == 2
    (tmp_path / "text").write_text("not a checkpoint")
    with pytest.raises(CheckpointRefused):
        load_checkpoint(tmp_path / "text", relay())
    with pytest.raises(CheckpointRefused, match="cannot be read"):
        load_checkpoint(tmp_path, relay())


def test_what_is_no_regular_file_is_refused_at_once(tmp_path: Path) -> None:
    """A FIFO would be waited for without end: as a file, as the manifest, as what the manifest names."""
    model = relay(1)
    (pair,) = checkpoints(1, model)
    file = CheckpointFiles(tmp_path, model).save(*pair)
    for source, replaced in ((file, file), (tmp_path, file), (tmp_path, tmp_path / "MANIFEST")):
        replaced.unlink()
        os.mkfifo(replaced)
        with pytest.raises(CheckpointRefused, match="it is no regular file") as caught:
            load_checkpoint(source, model)
        assert caught.value.value == str(replaced)


def test_a_checkpoint_of_another_run_is_named_with_what_to_do(tmp_path: Path) -> None:
    """Another seed, another model; the checkpoint is whole, so nobody is told to begin anew."""
    seeded = Model("relay", seed=3, trace_interval=BLOCK)
    seeded.add(Runner, 60, path="runner")
    files = CheckpointFiles(tmp_path, relay())
    written = [files.save(*pair) for pair in checkpoints(2, relay())]
    assert written[1].suffix == ".twd"
    for source, file in ((tmp_path, written[1]), (written[0], written[0])):
        for other, rule in ((seeded, "its seed is 1, this model's is 3"), (relay(4), "it is of model")):
            with pytest.raises(CheckpointRefused, match=rule) as caught:
                load_checkpoint(source, other)
            assert caught.value.value == str(file)
            assert caught.value.action.startswith("use the options that it was made with")


def test_the_checkpoints_of_another_run_are_not_removed(tmp_path: Path) -> None:
    """Only a run that goes on from this folder, or a file of it, may write there; nothing is touched otherwise."""

    def told(resume: Path | None) -> dict[str, bytes]:
        with pytest.raises(OperatorError, match="or name an empty folder") as caught:
            run(relay(), END, checkpoint=tmp_path / "a", resume=resume, tier="python")
        assert caught.value.action.startswith(f"resume with --resume {tmp_path / 'a'}")
        return {file.name: file.read_bytes() for file in (tmp_path / "a").iterdir()}

    for name in "ab":
        run(relay(), END // 2, checkpoint=tmp_path / name, checkpoint_every=3 * BLOCK, tier="python")
    before = {file.name: file.read_bytes() for file in (tmp_path / "a").iterdir()}
    assert told(None) == told(tmp_path / "b") == before
    (tmp_path / "a" / "MANIFEST").unlink()
    assert [*told(None)] == [name for name in before if name != "MANIFEST"]
    file = next(whole_checkpoints(tmp_path / "a", relay()))
    for resume in (file, tmp_path / "a"):  # the first makes a manifest again
        run(relay(), END, checkpoint=tmp_path / "a", checkpoint_every=3 * BLOCK, resume=resume, tier="python")
    assert load_checkpoint(tmp_path / "a", relay())


def test_a_run_finds_out_at_its_start_that_it_cannot_leave_checkpoints(tmp_path: Path) -> None:
    """A file in place of the folder."""
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreFailed, match="File exists"):
        run(relay(), 0, checkpoint=tmp_path / "file", tier="python")


class Crash(BaseException):
    """The process ends here."""


STEPS = ("fsync", "replace", "unlink")
SYSTEM_CALLS = 8  # of one save that forgets one file


@pytest.mark.parametrize("step", range(SYSTEM_CALLS + 1))
def test_a_crash_at_any_step_leaves_a_checkpoint(step: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process dies before the n-th system call of a save: the folder gives this checkpoint or the one before it, whole."""
    model = relay(2)
    pairs = checkpoints(4, model)
    files = CheckpointFiles(tmp_path, model)
    for tick, data in pairs[:2]:
        files.save(tick, data)
    calls = 0

    def dying(call: Callable[..., object]) -> Callable[..., object]:
        def wrapped(*arguments: object) -> object:
            nonlocal calls
            if calls == step:
                raise Crash
            calls += 1
            return call(*arguments)

        return wrapped

    with monkeypatch.context() as patch:
        for name in STEPS:
            patch.setattr(checkpoint_files.os, name, dying(getattr(os, name)))
        crashed = False
        try:
            files.save(*pairs[2])
        except Crash:
            crashed = True
    assert crashed == (step < SYSTEM_CALLS)
    assert load_checkpoint(tmp_path, model) in (pairs[1][1], pairs[2][1])
    CheckpointFiles(tmp_path, model, resume=tmp_path).save(*pairs[3])
    assert load_checkpoint(tmp_path, model) == pairs[3][1]
    assert [name for name in names(tmp_path) if name.endswith(".new")] == []


@pytest.mark.parametrize(("code", "kind"), [(errno.ENOSPC, StoreFull), (errno.EIO, StoreFailed)])
def test_a_disk_that_takes_no_more_leaves_the_older_ones(
    code: int, kind: type[OperatorError], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The save fails with a class that says why; what was there stays, and the next save works."""
    model = relay(2)
    pairs = checkpoints(2, model)
    files = CheckpointFiles(tmp_path, model)
    files.save(*pairs[0])

    def refuse(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint_files.os, "fsync", refuse)
        with pytest.raises(kind):
            files.save(*pairs[1])
    assert load_checkpoint(tmp_path, model) == pairs[0][1]
    assert list(tmp_path.glob("*.new")) == []  # a draft would keep a full disk full
    files.save(*pairs[1])
    assert load_checkpoint(tmp_path, model) == pairs[1][1]


class Hands:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.s = 0.0

    def now(self) -> float:
        """Seconds."""
        return self.s


def test_the_schedule_follows_what_checkpoints_cost() -> None:
    """Fixed: rounded to blocks. Adaptive: Young's interval, as virtual time at the speed measured since the last one."""
    clock = Hands()
    fixed = Schedule(25, BLOCK, clock)  # type: ignore[arg-type]
    assert (fixed.first(0), fixed.first(20), fixed.next(20)) == (20, 40, 40)
    schedule = Schedule(None, BLOCK, clock)  # type: ignore[arg-type]
    assert schedule.first(35) == 40
    clock.s = 2.0
    schedule.begin()
    clock.s = 2.0 + 1.0 / 86_400.0 / 2.0  # sqrt(2 · cost · a day) = 1 s, at (40 - 35) ticks in 2 s
    assert schedule.next(40) == 40 + BLOCK
    clock.s += 1e-3
    schedule.begin()
    clock.s += 200.0 / 86_400.0  # 20 s at 10 ticks in a millisecond
    assert schedule.next(50) == pytest.approx(50 + 200_000, rel=0.01)


def test_a_run_leaves_checkpoints_and_is_resumed(tmp_path: Path) -> None:
    """`run` with checkpoint, then with resume: the digest and the outputs of the run that was never stopped."""
    whole = run(relay(), END, tier="python")
    first = run(relay(), END // 2, checkpoint=tmp_path, checkpoint_every=3 * BLOCK, tier="python")
    assert first.checkpoints == END // 2 // (3 * BLOCK)
    again = run(relay(), END, resume=tmp_path, tier="python")
    assert again.digest == whole.digest
    assert 0 < again.resumed < again.committed == whole.committed
    assert again.outputs == whole.outputs[again.resumed :]
    with Engine(relay(), tier="python") as engine:
        engine.advance(again.resumed * BLOCK - 1)
        assert digest_of(engine.checkpoint()) == digest_of(load_checkpoint(tmp_path, relay()))


def test_an_adaptive_run_leaves_at_least_one(tmp_path: Path) -> None:
    """Without an interval the first comes after one block."""
    assert run(relay(), END, checkpoint=tmp_path, tier="python").checkpoints >= 1
    assert run(relay(), END, resume=tmp_path, tier="python").digest == run(relay(), END, tier="python").digest
