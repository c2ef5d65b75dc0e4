"""The committed side of a run: chains, outputs, accumulators, and the digest that names it all."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripted import Go, Letter, scripted

from tidewarp.codec import Chain, Digest
from tidewarp.errors import CheckpointRefused, OperatorError, RangeError
from tidewarp.kernel.objects import initial_image
from tidewarp.kernel.records import Event, pack_event
from tidewarp.kernel.trace import Ledger

MODEL = scripted(lambda *_: None)
MODEL.freeze()
IMAGE = initial_image(MODEL)


def ledger(digest: str = "events", outputs_max: int = 2**20) -> Ledger:
    return Ledger(MODEL, digest, outputs_max)


def go(time: int, seq: int = 0) -> Event:
    return (time, 0, 0, 0, seq, Go(seq))


ticks = st.lists(st.integers(0, 2000), max_size=40).map(sorted)


@given(ticks, st.lists(st.integers(0, 40), max_size=5))
def test_batches_do_not_matter(times: list[int], cuts: list[int]) -> None:
    """Events one by one, in any batches, or all at once: one chain, one digest."""
    events = [go(time, number) for number, time in enumerate(times)]
    whole, parts = ledger(), ledger()
    whole.commit(events)
    edges = [0, *sorted(min(cut, len(events)) for cut in cuts), len(events)]
    for begin, end in pairwise(edges):
        parts.commit(events[begin:end])
    assert parts.digest(5, IMAGE) == whole.digest(5, IMAGE)
    assert parts.committed == whole.committed == len(events)


def test_the_digest_of_a_run() -> None:
    """Written out once more, as the reference page says it."""
    book = ledger()
    events = [go(10), go(120, 1)]
    book.commit(events)
    book.emit(events[0], [Go(5)])
    book.add([(0, 7)])
    chain, outputs = Chain(100), Chain(100)
    for event in events:
        chain.add(event[0], pack_event(MODEL, event))
    outputs.add(10, pack_event(MODEL, (*events[0][:5], Go(5))))
    digest = Digest("TWKERN1")
    digest.add(bytes.fromhex(MODEL.digest()))
    digest.add((1).to_bytes(8, "big"))
    digest.add((200).to_bytes(8, "big"))
    digest.add(chain.head())
    digest.add(outputs.head())
    digest.add(b"".join(n.to_bytes(16, "big", signed=True) for n in (7, 2**63 - 1, -(2**63))))
    for rows in IMAGE.rows:
        digest.add(rows)
    digest.add(IMAGE.pending)
    assert book.digest(200, IMAGE) == digest.hexdigest()


def test_a_digest_of_the_state_counts_events_in_place_of_chaining_them() -> None:
    """It has a label of its own, so it never equals the other, and it does not see their order."""
    books = [ledger("state"), ledger("state"), ledger()]
    for book, events in zip(books, ([go(1), go(2)], [go(1), go(3)], [go(1), go(2)]), strict=True):
        book.commit(events)
    digests = [book.digest(5, IMAGE) for book in books]
    assert digests[0] == digests[1] != digests[2]
    books[0].commit([go(4)])
    assert books[0].digest(5, IMAGE) != digests[1]


def test_a_digest_that_is_off() -> None:
    """None, and asking for it is an error."""
    book = ledger("off")
    assert book.digest(5, IMAGE) is None
    with pytest.raises(OperatorError, match="set digest='events' or 'state'"):
        book.check_digest()


CHANGES: dict[str, Any] = {
    "until": lambda book: None,
    "an event": lambda book: book.commit([go(5)]),
    "an output": lambda book: book.emit(go(5), [Go(1)]),
    "an accumulator": lambda book: book.add([(0, 1)]),
}


@pytest.mark.parametrize("digest", ["events", "state"])
@pytest.mark.parametrize("change", [*CHANGES, "a row", "a pending event"])
def test_everything_is_in_the_digest(digest: str, change: str) -> None:
    """Nothing committed can differ without the digest differing."""
    book, image = ledger(digest), IMAGE
    before = book.digest(5, image)
    if change in CHANGES:
        CHANGES[change](book)
    elif change == "a row":
        image = image._replace(rows=(bytes(len(image.rows[0]) - 1) + b"\1", *image.rows[1:]))
    else:
        image = image._replace(pending=b"")
    assert book.digest(6 if change == "until" else 5, image) != before


def test_outputs_are_numbered_within_their_tick() -> None:
    """The id is the same in every life: the tick, and the place among the tick's outputs."""
    book = ledger()
    book.emit((5, 0, 1, 0, 0, Go()), [Go(1), Go(2)])
    book.emit((5, 1, 0, 0, 1, Go()), [Go(3)])
    book.emit((300, 0, 2, 0, 2, Go()), [Go(4)])
    assert [(output.id, output.tick, output.lp, output.message.step) for output in book.outputs] == [
        ("0000000000000005-00000000", 5, 1, 1),
        ("0000000000000005-00000001", 5, 1, 2),
        ("0000000000000005-00000002", 5, 0, 3),
        ("000000000000012c-00000000", 300, 2, 4),
    ]


def test_a_ledger_is_full_at_its_bound() -> None:
    """And has room again once they are taken."""
    book = ledger(outputs_max=2)
    book.emit(go(1), [Go()])
    assert not book.full
    book.emit(go(2), [Go()])
    assert book.full
    book.outputs.clear()
    assert not book.full


def test_what_precedes_a_bad_record_is_committed() -> None:
    """An event whose message does not fit its kinds ends the batch there: count and chain hold exactly what came before."""
    bad: Event = (20, 0, 1, 0, 1, Letter(256, (1, 2)))
    book, expected = ledger(), ledger()
    with pytest.raises(RangeError, match=r"s\.0: Letter\.small = 256"):
        book.commit([go(10), bad, go(30, 2)])
    expected.commit([go(10)])
    assert book.committed == 1
    assert book.digest(5, IMAGE) == expected.digest(5, IMAGE)


def test_outputs_of_an_event_are_taken_whole() -> None:
    """One that does not fit its kinds keeps the others back."""
    book = ledger()
    with pytest.raises(RangeError):
        book.emit(go(10), [Go(1), Letter(256, (1, 2))])
    assert not book.outputs
    assert book.emitted.count == 0


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(-(2**63), 2**63 - 1)), max_size=20))
def test_accumulators_are_sums_and_bounds(adds: Sequence[tuple[int, int]]) -> None:
    """Of everything that was added, however large the sum."""
    book = ledger()
    book.add(adds)
    per = [[n for index, n in adds if index == which] for which in range(3)]
    assert book.accumulators == [sum(per[0]), min(per[1], default=2**63 - 1), max(per[2], default=-(2**63))]
    assert book.digest(0, IMAGE) is not None


@given(ticks)
def test_heads_of_the_blocks_name_where_runs_part(times: list[int]) -> None:
    """A head for each block with events; up to a changed event they are equal, from there on none is."""
    events = [go(time, number) for number, time in enumerate(times)]
    books = [ledger(), ledger()]
    changed = len(events) // 2
    for book in books:
        book.keep_digests()
    books[0].commit(events)
    other = [(*event[:5], Go(-1)) if number == changed else event for number, event in enumerate(events)]
    books[1].commit(other)
    heads = [book.trace_digests() for book in books]
    assert list(heads[0]) == sorted({time // 100 for time in times})
    for block in heads[0]:
        assert (heads[0][block] == heads[1][block]) == (block < times[changed] // 100)


def test_a_ledger_goes_on_where_another_stopped() -> None:
    """Between two blocks: the chain's head is enough."""
    whole, first, second = ledger(), ledger(), ledger()
    whole.commit([go(10), go(150, 1)])
    whole.emit(go(150, 1), [Go()])
    first.commit([go(10)])
    second.take_up(first.events.head(), first.emitted.head(), 1, 0, first.accumulators)
    second.commit([go(150, 1)])
    second.emit(go(150, 1), [Go()])
    assert second.digest(200, IMAGE) == whole.digest(200, IMAGE)
    with pytest.raises(CheckpointRefused, match="kept no trace"):
        ledger().take_up(None, bytes(32), 0, 0, [0, 0, 0])
