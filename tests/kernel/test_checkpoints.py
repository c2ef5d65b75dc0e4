"""Checkpoints: one byte form, restored anywhere, and refused unless every byte is right."""

from __future__ import annotations

import struct
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidewarp.codec import Digest
from tidewarp.errors import CheckpointRefused, OperatorError
from tidewarp.kernel import (
    Bytes,
    Context,
    Engine,
    LogicalProcess,
    Model,
    Published,
    Status,
    b1,
    f64,
    i64,
    on,
    run,
    u64,
)
from tidewarp.kernel.checkpoints import (
    Saved,
    apply_delta,
    base_of,
    decode,
    delta,
    digest_of,
    encode,
    interval_ticks,
    young_interval_s,
)
from tidewarp.kernel.records import HIDDEN, Image, framed, split_frames
from tidewarp.units import TICK_MAX
from tidewarp.worlds.phold import phold

END = 400
BLOCK = 50


class Note(NamedTuple):
    """From one writer to the next."""

    number: i64
    share: f64


class Writer(LogicalProcess):
    """State of every sort: flags, floats, bytes of any length; outputs, accumulators, random numbers."""

    odd: b1
    share: f64
    text: Bytes
    seen: i64

    def start(self, ctx: Context) -> None:
        """Two notes each."""
        for _ in range(2):
            ctx.send(ctx.lp, 1 + ctx.below(30), Note(ctx.lp, ctx.random()))

    @on(Note)
    def read(self, now: int, note: Note, ctx: Context) -> None:
        """Change everything, tell somebody."""
        self.odd = not self.odd
        self.share = self.share + note.share
        self.text = (self.text + bytes([now % 256]))[-(now % 7) :]
        ctx.add("notes")
        if now % 3 == 0:
            ctx.emit(note)
        ctx.send(ctx.below(ctx.n_lps), 1 + ctx.below(40), Note(now, ctx.random()))

    @on(Published)
    def hear(self, now: int, published: Published, ctx: Context) -> None:
        """What all have counted together."""
        self.seen = published.value


class Counter(LogicalProcess):
    """Fixed rows with a flag and a float."""

    flag: b1
    mean: f64
    count: u64

    @on(Note)
    def read(self, now: int, note: Note, ctx: Context) -> None:
        """Count."""
        self.flag = not self.flag
        self.mean = (self.mean + note.share) / 2.0
        self.count += 1


def writers(seed: int = 1, lps: int = 5) -> Model:
    """All that a checkpoint can hold."""
    model = Model("writers", seed=seed, trace_interval=BLOCK)
    model.add(Writer, lps, path="writer")
    model.add(Counter, 2, path="counter")
    model.accumulator("notes", publish_every=70)
    model.accumulator("most", kind="max")
    model.input("letters")
    return model


def checkpoint_at(tick: int, model: Model) -> bytes:
    """The checkpoint of a run that was advanced to ``tick``."""
    with Engine(model) as engine:
        if tick >= 0:
            engine.advance(tick)
        engine.outputs()
        return engine.checkpoint()


def digest_from(data: bytes, model: Model, **options: object) -> str:
    """The digest at END of a run that goes on from a checkpoint."""
    with Engine.restore(model, data, **options) as engine:
        assert engine.advance(END) is Status.DONE
        return engine.digest()


@settings(max_examples=settings().max_examples // 5)
@given(st.integers(-1, END - 2 * BLOCK), st.integers(0, 2**64 - 1))
def test_a_restored_run_ends_like_one_that_was_never_stopped(tick: int, seed: int) -> None:
    """Events, outputs, accumulators, publications and state: one digest, wherever it was cut, and once more behind that."""
    whole = run(writers(seed), END).digest
    data = checkpoint_at(tick, writers(seed))
    assert digest_from(data, writers(seed)) == whole
    with Engine.restore(writers(seed), data) as engine:
        assert engine.checkpoint() == data
        engine.advance(engine.until + BLOCK)
        engine.outputs()
        later = engine.checkpoint()
    assert later == checkpoint_at(decode(writers(seed), data).tick + BLOCK - 1, writers(seed))
    assert digest_from(later, writers(seed)) == whole


def test_a_checkpoint_lies_at_the_end_of_a_block() -> None:
    """All below the next multiple of trace_interval is committed, nothing at or above it; a fresh run is at 0 already."""
    for tick, expected in ((-1, 0), (0, BLOCK), (BLOCK - 1, BLOCK), (BLOCK, 2 * BLOCK)):
        saved = decode(writers(), checkpoint_at(tick, writers()))
        assert saved.tick == expected
        times = [struct.unpack_from(">q", record)[0] for record in split_frames(saved.image.pending)]
        assert min(times) >= expected
    with Engine(phold(lps=4, population=2), tier="python") as engine:
        engine.checkpoint()
        assert (engine.gvt, engine.until, engine.ledger.committed) == (0, -1, 0)


def test_gvt_clocks_and_sources_go_on_where_they_were() -> None:
    """Watermarks, counts of inputs, accumulators, the number of outputs: all as in the engine that wrote it."""
    model = writers()
    source = model.sources[0]
    with Engine(model) as engine:
        engine.watermark(source, 10)
        engine.inject(source, 0, 30, Note(1, 0.5))
        engine.inject(source, 5, 260, Note(2, 0.5))
        engine.watermark(source, 2 * BLOCK)
        engine.advance(60)
        first = engine.outputs()
        data = engine.checkpoint()
        between = engine.outputs()
        engine.inject(source, 1, 2 * BLOCK, Note(3, 0.25))
        engine.watermark(source, TICK_MAX)
        engine.advance(END)
        rest, digest = engine.outputs(), engine.digest()
    saved = decode(model, data)
    assert saved.outputs == len(first + between)
    assert (saved.watermarks, saved.counts) == ((2 * BLOCK,), (2,))
    with Engine.restore(model, data) as engine:
        assert engine.gvt == 2 * BLOCK
        assert engine.ledger.accumulators[0] == saved.accumulators[0] > 0
        with pytest.raises(ValueError, match="stand at 100"):
            engine.inject(source, 1, 2 * BLOCK - 1, Note(3, 0.25))
        engine.inject(source, 1, 2 * BLOCK, Note(3, 0.25))
        engine.watermark(source, TICK_MAX)
        engine.advance(END)
        assert (engine.outputs(), engine.digest()) == (rest, digest)


def test_a_watermark_that_holds_the_run_holds_the_checkpoint() -> None:
    """The error names the source; the run can go on."""
    model = writers()
    with Engine(model) as engine:
        engine.watermark(model.sources[0], 20)
        engine.advance(10)
        with pytest.raises(OperatorError, match="watermark of input 'letters'"):
            engine.checkpoint()
        engine.watermark(model.sources[0], TICK_MAX)
        assert decode(model, engine.checkpoint()).tick == BLOCK


def test_a_run_that_kept_no_trace_cannot_begin_one() -> None:
    """From events to state is possible, the other way is refused with what to do."""
    with Engine(writers(), digest="state") as engine:
        engine.advance(20)
        data = engine.checkpoint()
        engine.outputs()
        engine.advance(END)
        wanted = engine.digest()
    with pytest.raises(CheckpointRefused, match="digest='state'"):
        Engine.restore(writers(), data)
    assert digest_from(data, writers(), digest="state") == wanted
    traced = checkpoint_at(20, writers())
    assert digest_from(traced, writers(), digest="state") == wanted
    with Engine.restore(writers(), traced, digest="state") as engine:
        assert engine.checkpoint() == data


def test_a_checkpoint_cut_anywhere_is_refused() -> None:
    """No prefix of it, and nothing longer, is a checkpoint."""
    model = writers(lps=2)
    data = checkpoint_at(0, model)
    for size in range(len(data)):
        with pytest.raises(CheckpointRefused):
            decode(model, data[:size])
    with pytest.raises(CheckpointRefused, match=r"digest at their end"):
        decode(model, data + b"\0")


def test_a_checkpoint_with_any_byte_changed_is_refused() -> None:
    """Whichever byte it is; the error names the digest that the bytes claim."""
    model = writers(lps=1)
    data = checkpoint_at(0, model)
    for place in range(len(data)):
        broken = bytearray(data)
        broken[place] ^= 1 << place % 8
        with pytest.raises(CheckpointRefused, match=digest_of(bytes(broken))[:16]):
            decode(model, bytes(broken))


def test_another_model_or_seed_is_refused() -> None:
    """Both are named."""
    data = checkpoint_at(0, writers())
    with pytest.raises(CheckpointRefused, match="its seed is 1, this model's is 2"):
        Engine.restore(writers(seed=2), data)
    with pytest.raises(CheckpointRefused, match="it is of model"):
        Engine.restore(writers(lps=6), data)


def sealed(body: bytes, label: str = "TWCKPT1") -> bytes:
    """Bytes with the right digest at their end, so that only what they say is wrong."""
    digest = Digest(label)
    digest.add(body)
    return body + digest.digest()


def broken_forms() -> dict[str, Saved]:
    """Checkpoints that say something that no engine would write."""
    saved = decode(writers(), checkpoint_at(60, writers()))
    image = saved.image
    records = [bytes(record) for record in split_frames(image.pending)]
    counter = bytearray(image.rows[1])
    flag, nan = bytearray(counter), bytearray(counter)
    flag[HIDDEN.size] = 2
    struct.pack_into(">Q", nan, HIDDEN.size + 1, 0xFFF8000000000001)
    early = (BLOCK - 1).to_bytes(8, "big")
    nowhere = struct.pack(">q", 99)

    def with_rows(rows: bytes) -> Saved:
        return saved._replace(image=Image((image.rows[0], rows), image.pending))

    def with_pending(*parts: bytes) -> Saved:
        return saved._replace(image=Image(image.rows, framed(parts)))

    return {
        "flag of 2": with_rows(bytes(flag)),
        "another NaN": with_rows(bytes(nan)),
        "a row too few": with_rows(bytes(counter[: len(counter) // 2])),
        "order of events": with_pending(*records[::-1]),
        "an event twice": with_pending(records[0], *records),
        "an event before its tick": with_pending(early + records[0][8:], *records[1:]),
        "an event for nobody": with_pending(records[0][:16] + nowhere + records[0][24:], *records[1:]),
        "an event from nobody": with_pending(records[0][:24] + nowhere + records[0][32:], *records[1:]),
        "an unknown message": with_pending(records[0][:40] + b"\xff\xff" + records[0][42:], *records[1:]),
        "a message too long": with_pending(records[0] + b"\0", *records[1:]),
        "a tick inside a block": saved._replace(tick=saved.tick + 1),
        "a tick below 0": saved._replace(tick=-BLOCK),
        "a trace without tracing": saved._replace(tracing=False),
        "a watermark below -1": saved._replace(watermarks=(-2,)),
    }


@pytest.mark.parametrize("what", broken_forms())
def test_what_no_engine_writes_is_refused(what: str) -> None:
    """A right digest does not excuse wrong contents."""
    with pytest.raises(CheckpointRefused):
        decode(writers(), encode(writers(), broken_forms()[what]))


def test_trailing_and_missing_parts_are_refused_with_a_right_digest() -> None:
    """Lengths that do not add up."""
    body = checkpoint_at(0, writers())[:-32]
    for wrong in (body + b"\0", body[:-1], body[:100], body[:7], b"TWCKPT2" + body[7:]):
        with pytest.raises(CheckpointRefused):
            decode(writers(), sealed(wrong))


@settings(max_examples=settings().max_examples // 5)
@given(st.integers(0, 6), st.integers(0, 6))
def test_a_delta_makes_of_its_base_the_other_checkpoint(first: int, second: int) -> None:
    """In either direction, and from one to itself; it names its base."""
    model = writers()
    base, data = (checkpoint_at(block * BLOCK, model) for block in (first, second))
    change = delta(model, base, data)
    assert apply_delta(model, base, change) == data
    assert base_of(change) == digest_of(base)


def test_a_delta_holds_the_rows_that_differ() -> None:
    """One process of many has changed: the delta is small."""
    model = writers(lps=200)
    base = checkpoint_at(-1, model)
    saved = decode(model, base)
    rows = bytearray(saved.image.rows[1])
    rows[-1] ^= 1
    data = encode(model, saved._replace(image=Image((saved.image.rows[0], bytes(rows)), b"")))
    change = delta(model, base, data)
    assert apply_delta(model, base, change) == data
    assert len(change) < 500 < len(base)


def test_a_delta_refuses_another_base() -> None:
    """Both bases are named, and so is a delta that was cut or altered."""
    model = writers()
    first, second, third = (checkpoint_at(tick, model) for tick in (0, 100, 200))
    change = delta(model, first, second)
    with pytest.raises(CheckpointRefused, match=f"base {digest_of(first)[:16]}, not {digest_of(third)[:16]}"):
        apply_delta(model, third, change)
    for wrong in (change[:-1], change + b"\0", change[:80] + bytes([change[80] ^ 1]) + change[81:], b"", first):
        with pytest.raises(CheckpointRefused):
            apply_delta(model, first, wrong)
    body = change[:-32]
    count = struct.pack(">I", 10**6)
    for wrong in (body + b"\0", body[:-1], body[:72] + count + body[76:], body[:40] + bytes(32) + body[72:]):
        with pytest.raises(CheckpointRefused):
            apply_delta(model, first, sealed(wrong, "TWDELTA1"))


def test_young_balances_what_saving_and_losing_cost() -> None:
    """sqrt(2 · cost · mean time between failures), as whole blocks of virtual time and never none."""
    assert young_interval_s(2.0, 100.0) == 20.0
    assert interval_ticks(20.0, 10.0, 30) == 210
    assert interval_ticks(0.0, 10.0, 30) == 30
    assert interval_ticks(1e300, 1e9, 1000) == TICK_MAX // 1000 * 1000
