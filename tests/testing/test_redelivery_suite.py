"""The suite for sources that give again what was not confirmed finds what is wrong with one."""

from __future__ import annotations

import asyncio

import pytest

from tidewarp.connect.contract import Raw, Source
from tidewarp.connect.decoders import JsonMessages
from tidewarp.testing.redelivery import RedeliveryConformance

BODIES = [
    b'{"path": "a", "value": 1, "time": 7}',
    b"",
    b'{"path": "b", "value": "x", "time": 6}',
    b'{"path": "a", "value": 2, "time": 8}',
]


class Queue(Source):
    """The messages of a list, taken from it when they are confirmed. Its number in the list is the id."""

    name = kind = "queue"
    clock = "wall"

    def __init__(self, held):
        self.held = held  # id -> body: the target, which outlives the source

    def decoder(self, epoch_ns):
        return JsonMessages(epoch_ns)

    async def open(self, positions):
        self.offset = positions.get(0, 0)
        self.given = {}  # offset -> id

    async def read(self, limit):
        waiting = [one for one in self.held if one not in self.given.values()][:limit]
        if not waiting:
            await asyncio.Event().wait()
        return [self.raw(one) for one in waiting]

    def raw(self, id_):
        self.offset += 1
        self.given[self.offset] = id_
        return Raw(0, self.offset, self.held[id_], id=id_)

    async def confirm(self, positions):
        for offset in [offset for offset in self.given if offset <= positions.get(0, 0)]:
            self.held.pop(self.given[offset], None)


class TestQueue(RedeliveryConformance):
    messages = ((7 * 10**9, {"a": 1}), None, (6 * 10**9, {"b": "x"}), (8 * 10**9, {"a": 2}))
    make = Queue

    @pytest.fixture(autouse=True)
    def given(self):
        self.held = {}

    def create(self, folder):
        return self.make(self.held.setdefault(folder, {str(n): body for n, body in enumerate(BODIES)}))

    test_what_cannot_be_opened_says_so = None  # a list can


class Nameless(Queue):
    def raw(self, id_):
        return super().raw(id_)._replace(id="")


class CountsAnew(Queue):
    async def open(self, positions):
        await super().open({})


class ForgetsNothing(Queue):
    async def confirm(self, positions):
        pass


class ForgetsAll(Queue):
    async def confirm(self, positions):
        for id_ in self.given.values():
            self.held.pop(id_, None)


class ForgetsWhenClosed(Queue):
    async def close(self):
        for id_ in getattr(self, "given", {}).values():
            self.held.pop(id_, None)


class Renames(Queue):
    async def open(self, positions):
        await super().open(positions)
        for id_ in [*self.held]:
            self.held[f"{id_}'"] = self.held.pop(id_)


class GivesNotAgain(Queue):
    """Like a cursor: what was read is behind it, confirmed or not."""

    async def open(self, positions):
        await super().open(positions)
        for id_ in [*self.held][: positions.get(0, 0)]:
            self.held.pop(id_)


PLANTS = [
    (Nameless, "messages_mean_what_was_written", "needs an id"),
    (CountsAnew, "it_goes_on_behind_any_position", "the count goes on"),
    (ForgetsNothing, "it_can_be_closed_while_it_reads", "no more"),
    (ForgetsAll, "it_can_be_closed_while_it_reads", "a call waits for what never comes"),
    (ForgetsWhenClosed, "close_may_come_at_any_time", "a call waits for what never comes"),
    (Renames, "it_goes_on_behind_any_position", "nothing twice"),
    (GivesNotAgain, "it_goes_on_behind_any_position", "a call waits for what never comes"),
]


@pytest.mark.parametrize(("plant", "test", "told"), PLANTS, ids=[plant.__name__ for plant, *_ in PLANTS])
def test_a_planted_fault_of_a_source_that_gives_again_is_found(plant, test, told, tmp_path, monkeypatch):
    """By the test whose sentence it breaks; the sound one above passes all."""
    if "waits" in told:
        monkeypatch.setattr("tidewarp.testing.suites.SAFETY_S", 0.5)

    class Planted(TestQueue):
        make = plant

    suite = Planted()
    suite.held = {}
    with pytest.raises(BaseException, match=told):  # pytest.fail is no Exception
        getattr(suite, f"test_{test}")(tmp_path, *([1] if "closed" in test else []))
