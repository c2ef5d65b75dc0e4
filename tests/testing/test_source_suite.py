"""The suite for sources finds what is wrong with a source, and passes one that waits for ever."""

from __future__ import annotations

import asyncio
from itertools import count

import pytest

from tidewarp.codec import pack, unpack
from tidewarp.connect.contract import Raw, Undecodable, Update
from tidewarp.errors import CodecError, OperatorError
from tidewarp.testing.sources import SourceConformance

S = 10**9
SECRET = "s3cret"
TOPIC = [
    (100_000 * S, "a", 1),
    None,
    (100_002 * S, "b", "x"),
    (100_001 * S, "a", 2.5),
    (100_001 * S, "b", ""),
    (100_009 * S, "a", 3),
]


class TopicSource:
    """Messages of a broker in two partitions; offsets have gaps, as where a broker has compacted. It may wait for more."""

    kind = "topic"
    waits = False
    spread = 2  # partitions

    def __init__(self, password=""):
        self.name, self.password = "topic", password
        self.messages = [
            Raw(n % self.spread, 10 + 3 * n, b"\xc1" if one is None else pack(list(one))) for n, one in enumerate(TOPIC)
        ]
        self.left = None

    def describe(self):
        return {"kind": self.kind, "topic": "t"}

    def paths(self):
        return ["a", "b"]

    def first_event_ns(self):
        return TOPIC[0][0]

    def decoder(self, epoch_ns):
        return TopicDecoder(epoch_ns)

    async def open(self, positions):
        self.left = [one for one in self.messages if one.offset > positions.get(one.partition, -1)]

    async def read(self, limit):
        if not self.left:
            if not self.waits:
                return None
            await asyncio.Event().wait()
        part, self.left = self.left[:limit], self.left[limit:]
        return part

    async def confirm(self, positions):
        pass

    async def close(self):
        self.left = None


class TopicDecoder:
    def __init__(self, epoch_ns):
        self.epoch_ns = epoch_ns

    def decode(self, raw):
        try:
            match unpack(raw.payload):
                case [int(time_ns), str(path), value] if 0 <= time_ns < 2**63:
                    return Update(time_ns - self.epoch_ns, ((path, value),))
        except CodecError:
            pass
        raise Undecodable(f"message {raw.offset}", "not [time, path, value]", "mend the sender", "form")


class WaitingSource(TopicSource):
    """It cannot say beforehand when its first event was."""

    waits = True

    def first_event_ns(self):
        return None


class TestTopicSource(SourceConformance):
    messages = tuple(one and (one[0], {one[1]: one[2]}) for one in TOPIC)
    secrets = (SECRET,)

    def create(self, folder):
        return TopicSource(SECRET)

    def create_broken(self, folder):
        class Broken(TopicSource):
            async def open(self, positions):
                raise OperatorError("broker", "it does not answer", "start it")

        return Broken()


class TestWaitingSource(TestTopicSource):
    waits = True

    def create(self, folder):
        return WaitingSource(SECRET)


# ---------------------------------------------------------------------------- planted faults


class SkipsOneAfterResume(TopicSource):
    spread = 1

    async def open(self, positions):
        await super().open({partition: offset + 3 for partition, offset in positions.items()})


class BeginsAgain(TopicSource):
    async def open(self, positions):
        await super().open({})


class RepeatsOffsets(TopicSource):
    def __init__(self, password=""):
        super().__init__(password)
        self.messages = [one._replace(offset=one.offset // 20) for one in self.messages]


class DropsTheLimit(TopicSource):
    async def read(self, limit):
        return await super().read(limit + 1)


class ReturnsNothing(WaitingSource):
    async def read(self, limit):
        return await super().read(limit) if self.left else []


class GoesOnBehindItsEnd(TopicSource):
    async def read(self, limit):
        part = await super().read(limit)
        self.left = self.messages if part is None else self.left
        return part


class ForgetsWhatIsConfirmed(TopicSource):
    async def confirm(self, positions):
        self.left = self.left[1:]


class HoldsOn(WaitingSource):
    async def read(self, limit):
        try:
            return await super().read(limit)
        except asyncio.CancelledError:
            return None


class ClosesOnce(TopicSource):
    async def close(self):
        self.left.clear()
        self.left = None


class TellsItsPassword(TopicSource):
    def describe(self):
        return {"kind": self.kind, "url": f"broker://user:{self.password}@host"}


class CountsItsLives(TopicSource):
    lives = count()

    def __init__(self, password=""):
        super().__init__(password)
        self.life = next(self.lives)

    def describe(self):
        return {"kind": self.kind, "client": self.life}


class NamesAPathTwice(TopicSource):
    def paths(self):
        return ["a", "a"]


class GuessesTheFirstEvent(TopicSource):
    def first_event_ns(self):
        return TOPIC[0][0] + 1


def decoding(change):
    """A source whose decoder does ``change(decoder, raw)``."""

    class Decoder(TopicDecoder):
        decode = change

    class Changed(TopicSource):
        def decoder(self, epoch_ns):
            return Decoder(epoch_ns)

    return Changed


def raise_another_error(self, raw):
    time_ns, path, value = unpack(raw.payload) if raw.payload != b"\xc1" else TopicDecoder(0).decode(raw)
    return Update(time_ns - self.epoch_ns, ((path, value),))


def forget_the_epoch(self, raw):
    return TopicDecoder(0).decode(raw)


def remember(self, raw):
    update = TopicDecoder.decode(self, raw)
    self.epoch_ns -= 1
    return update


PLANTS = [
    (SkipsOneAfterResume, "it_goes_on_behind_any_position", "nothing twice, nothing left out"),
    (SkipsOneAfterResume, "a_twin_runs_on_it_is_replayed_and_resumed", "it is another run"),
    (BeginsAgain, "it_goes_on_behind_any_position", "nothing twice, nothing left out"),
    (RepeatsOffsets, "offsets_ascend_and_the_limit_is_kept", "each is above the one before it"),
    (DropsTheLimit, "offsets_ascend_and_the_limit_is_kept", r"read\(1\) returned 2 messages"),
    (ReturnsNothing, "it_can_be_closed_while_it_reads", "behind the last message it waits"),
    (GoesOnBehindItsEnd, "messages_mean_what_was_written", "after None there is only None"),
    (ForgetsWhatIsConfirmed, "confirming_changes_nothing", "moves no reader"),
    (HoldsOn, "it_can_be_closed_while_it_reads", "let CancelledError pass"),
    (ClosesOnce, "close_may_come_at_any_time", "'NoneType' object has no attribute 'clear'"),
    (TellsItsPassword, "its_description_is_plain_and_says_what_decides_the_meaning", "can be read in describe"),
    (CountsItsLives, "its_description_is_plain_and_says_what_decides_the_meaning", "leave out what may differ"),
    (NamesAPathTwice, "its_paths_can_be_declared", "declared already"),
    (GuessesTheFirstEvent, "the_first_event_is_that_of_the_first_message", "the first of `messages`"),
    (decoding(raise_another_error), "no_bytes_break_the_decoder", "raise Undecodable"),
    (decoding(forget_the_epoch), "the_decoder_is_pure", "tick = Unix ns - epoch_ns"),
    (decoding(remember), "the_decoder_is_pure", "keep no state"),
]
OPTIONS = {"offsets_ascend_and_the_limit_is_kept": [1], "it_can_be_closed_while_it_reads": [20]}


@pytest.mark.parametrize(("plant", "test", "told"), PLANTS)
def test_a_planted_fault_of_a_source_is_found(plant, test, told, tmp_path):
    """By the test whose sentence it breaks, which says what to do; the sound sources above pass it."""

    class Planted(TestTopicSource):
        waits = plant.waits

        def create(self, folder):
            return plant(SECRET)

    with pytest.raises(Exception, match=told):
        getattr(Planted(), f"test_{test}")(tmp_path, *OPTIONS.get(test, []))
