r"""The suite for sources: derive from SourceConformance, and pytest checks your source against the contract.

    class TestMySource(SourceConformance):
        messages = [(10**9, {"line.value": "1.5"}), None, (2 * 10**9, {"line.value": "2"})]

        def create(self, folder):
            file = folder / "readings.txt"
            file.write_text("1 1.5\nbroken\n2 2\n")
            return MySource(file)

The contract is :class:`tidewarp.connect.contract.Source`. Importing this module needs the extra ``test`` (else MissingExtra).
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

from tidewarp.codec import pack
from tidewarp.connect.contract import HEAD_BYTES, MESSAGE_BYTES_MAX, Decoder, Raw, Source
from tidewarp.errors import OperatorError
from tidewarp.process import Environment
from tidewarp.testing.readings import Finite, Rows, by_partition, connect_all, live, meaning, positions, refuse_unsound
from tidewarp.testing.suites import hypothesis, made, perform, pytest, strategies
from tidewarp.twin import Build, Summary, Twin, open_twin, replay
from tidewarp.units import in_seconds

__all__ = ["SourceConformance"]

_TURNS = 20  # of the event loop: what waits after so many, waits for data
_PIECES = 5  # a whole run is cut at so many places
_EPOCH_NS = 86_400 * 10**9
_HOSTILE = [
    b"",
    b"\0",
    b"\n",
    b"\xff" * 9,
    b"[" * 50_000,
    b'{"a":' * 50_000,
    b"9" * 5_000,
    b"NaN",
    b"1e999",
    b"null",
    b'""',
]


class SourceConformance:
    """Tests of one source. Give ``messages`` and :meth:`create`; the rest says what else there is to be tested."""

    messages: Sequence[tuple[int, Mapping[str, Any]] | None]
    """What the source gives, in its order: (time, path -> value as decoded), None for what its decoder must refuse.

    The time is in ns: Unix time, or ticks where times count from the epoch of the twin. Five to twenty are enough; one of
    them late, and one None if the source has a decoder."""

    waits: bool = False
    """Behind its last message the source waits for more, for ever, in place of returning None."""

    secrets: Sequence[str] = ()
    """Texts that ``create`` gives to the source and that no journal may show."""

    def create(self, folder: Path) -> Source:
        """A new source over ``messages``, not opened; a second one for the same folder is a later life on it."""
        raise NotImplementedError("a suite for a source needs create(folder)")

    def create_broken(self, folder: Path) -> Source:
        """A source that cannot be opened: its file is missing, its server is not there."""
        pytest.skip("not tested before the suite defines create_broken(folder), or sets this test to None")

    # ------------------------------------------------------------------ messages
    def test_messages_mean_what_was_written(self, tmp_path: Path) -> None:
        """Decoded, they are ``messages``, in order; where None stands the decoder raises a PeerError."""
        raws, decoder = self._all(tmp_path)
        found = [meaning(decoder, raw) for raw in raws]
        expected = [None if one is None else (one[0], dict(one[1])) for one in self.messages]
        if len({raw.partition for raw in raws}) > 1:  # which partition comes first is nobody's promise
            found, expected = sorted(found, key=repr), sorted(expected, key=repr)
        assert found == expected, "mend the decoder, or `messages` of this suite"

    @pytest.mark.parametrize("limit", [1, 2, 1_000])
    def test_offsets_ascend_and_the_limit_is_kept(self, tmp_path: Path, limit: int) -> None:
        """Each message has a place of its own (partition, offset), the same for every limit; no read gives none or more."""
        raws, _ = self._all(tmp_path, limit=limit)
        for one in raws:
            assert 0 <= one.partition < 1 << 16, f"{one}: a partition has 16 bits"
            assert 0 <= one.offset < 1 << 48, f"{one}: an offset has 48 bits"
            assert len(one.payload) <= MESSAGE_BYTES_MAX, "give the first HEAD_BYTES, and sha256 of the whole"
            assert one.sha256 is None or (len(one.sha256), len(one.payload)) == (32, HEAD_BYTES), (
                "sha256 is for too long ones"
            )
        for partition, part in by_partition(raws).items():
            offsets = [one.offset for one in part]
            rising = all(one < other for one, other in pairwise(offsets))
            assert rising, f"partition {partition}, offsets {offsets}: each is above the one before it"
        assert by_partition(raws) == by_partition(self._all(tmp_path)[0]), "the same messages, whatever the limit"

    def test_it_goes_on_behind_any_position(self, tmp_path: Path) -> None:
        """Opened behind message k it gives exactly the rest, byte for byte, under the same offsets."""
        raws, _ = self._all(tmp_path)
        for done in range(len(raws) + 1):
            rest, _ = self._all(tmp_path, raws[:done], limit=1 + done % 3)
            told = f"open({positions(raws[:done])}) stands behind these offsets: nothing twice, nothing left out"
            assert by_partition(rest) == by_partition(raws[done:]), told

    def test_confirming_changes_nothing(self, tmp_path: Path) -> None:
        """confirm() comes at any time, also for nothing and twice; what was not confirmed is still given."""
        raws, _ = self._all(tmp_path)
        confirmed, _ = self._all(tmp_path, limit=2, confirming=True)
        assert by_partition(confirmed) == by_partition(raws), (
            "confirm() moves no reader: the target may forget, no more"
        )
        assert self._all(tmp_path, raws)[0] == [], "behind the last confirmed message there is none"

    # ------------------------------------------------------------------ life
    @pytest.mark.parametrize("turns", [0, 1, _TURNS])
    def test_it_can_be_closed_while_it_reads(self, tmp_path: Path, turns: int) -> None:
        """A read under way is cancelled, as when a run ends: it lets CancelledError pass, and close() leaves all in order."""
        raws, _ = self._all(tmp_path)

        async def life() -> None:
            source = self.create(made(tmp_path))
            await source.open(positions(raws))
            source.decoder(0)
            task = asyncio.ensure_future(source.read(1))
            for _ in range(turns):
                await asyncio.sleep(0)
            await source.confirm(positions(raws))
            if self.waits:
                assert not task.done(), f"{task}: behind the last message it waits; confirm() does not end that"
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled() or not self.waits, f"{task}: let CancelledError pass"
            await source.close()

        perform(life())
        assert by_partition(self._all(tmp_path)[0]) == by_partition(raws), (
            "a read that was cancelled has taken nothing away"
        )

    def test_close_may_come_at_any_time(self, tmp_path: Path) -> None:
        """Before open, after it, after a read, and twice; the next life has everything."""
        raws, _ = self._all(tmp_path)

        async def life(steps: int) -> None:
            source = self.create(made(tmp_path))
            if steps > 0:
                await source.open({})
                source.decoder(0)
            if steps > 1:
                await source.read(1)
            await source.close()
            await source.close()

        for steps in range(3):
            perform(life(steps))
            assert by_partition(self._all(tmp_path)[0]) == by_partition(raws), "close() leaves the target as it was"

    def test_what_cannot_be_opened_says_so(self, tmp_path: Path) -> None:
        """open() raises an OperatorError with value, rule and next action; closing is safe all the same."""

        async def life() -> None:
            source = self.create_broken(made(tmp_path))
            with pytest.raises(OperatorError):
                await source.open({})
            await source.close()
            await source.close()

        perform(life())

    # ------------------------------------------------------------------ what it says of itself
    def test_its_description_is_plain_and_says_what_decides_the_meaning(self, tmp_path: Path) -> None:
        """describe() is journaled and compared at resume: plain data, equal in every life, no secret in it."""
        one, other = self.create(made(tmp_path)), self.create(tmp_path)
        described = one.describe()
        pack(described)  # raises CodecError for what is not plain
        self._all(tmp_path)
        assert described == one.describe() == other.describe(), "leave out what may differ between two lives"
        taken = {"disorder", "late", "rank"} & described.keys()
        assert not taken, f"describe() has {taken}, the names of what connect() is told"
        shown = [text for text in self.secrets if any(text in said for said in (repr(described), one.name, repr(one)))]
        assert not shown, f"{len(shown)} of `secrets` can be read in describe(), name or repr()"
        assert all(type(text) is str and text.isprintable() and text for text in (one.name, one.kind)), "printable text"

    def test_its_paths_can_be_declared(self, tmp_path: Path) -> None:
        """paths() needs no open(), names each path once, and each is one that a registry takes."""
        registry = Environment(seed=0).registry
        for path in self.create(made(tmp_path)).paths():
            registry.declare(path, None)

    def test_the_first_event_is_that_of_the_first_message(self, tmp_path: Path) -> None:
        """first_event_ns() is the time of the first message that can be read, or None; asking moves no reader."""
        source = self.create(made(tmp_path))
        first_ns = source.first_event_ns()
        expected = next((one[0] for one in self.messages if one is not None), None)
        assert first_ns in (None, expected), "the first of `messages` that is not None"
        assert first_ns == source.first_event_ns(), "the same whenever it is asked"
        raws, _ = perform(live(source, {}, 1_000, left=len(self.messages) if self.waits else None))
        assert len(raws) == len(self.messages)

    # ------------------------------------------------------------------ decoder
    def test_the_decoder_is_pure(self, tmp_path: Path) -> None:
        """Equal bytes are equal updates, at any time and in any life; the epoch moves the times and nothing else."""
        raws, decoder = self._all(tmp_path)
        shifts = [
            _EPOCH_NS,
            *[0] * (self.create(tmp_path).first_event_ns() is None),
        ]  # None: relative, or not known beforehand
        _, later = self._all(tmp_path, epoch_ns=_EPOCH_NS)
        _skip_without(decoder)
        once = [meaning(decoder, raw) for raw in raws]
        again = [meaning(decoder, raw) for raw in reversed(raws)]
        assert again == once[::-1], "keep no state from message to message"
        moved = [meaning(later, raw) for raw in raws]
        shifted = [[one and (None if one[0] is None else one[0] + shift, one[1]) for one in moved] for shift in shifts]
        assert once in shifted, (
            "tick = Unix ns - epoch_ns, exactly; or, where times count from the epoch, the time itself"
        )

    def test_no_bytes_break_the_decoder(self, tmp_path: Path) -> None:
        """Whatever the bytes are: an Update, or a PeerError (Undecodable); never another exception."""
        raws, decoder = self._all(tmp_path)
        _skip_without(decoder)
        pieces = strategies.tuples(
            strategies.sampled_from(raws),
            strategies.integers(0, 80),
            strategies.integers(0, 8),
            strategies.binary(max_size=8),
        )
        damaged = pieces.map(lambda one: one[0].payload[: one[1]] + one[3] + one[0].payload[one[1] + one[2] :])

        @hypothesis.settings(report_multiple_bugs=False, suppress_health_check=[hypothesis.HealthCheck.too_slow])
        @hypothesis.given(strategies.binary(max_size=200) | damaged)
        def any_bytes(payload: bytes) -> None:
            refuse_unsound(decoder, Raw(0, 1, payload))

        any_bytes()
        for payload in _HOSTILE:
            refuse_unsound(decoder, Raw(0, 1, payload))
        refuse_unsound(decoder, Raw(0, 1, bytes(HEAD_BYTES), bytes(32)))

    # ------------------------------------------------------------------ the whole
    def test_a_twin_runs_on_it_is_replayed_and_resumed(self, tmp_path: Path) -> None:
        """All readings reach the model; the replay is equal; stopped anywhere and resumed, it is the same run."""
        raws, _ = self._all(tmp_path)
        build = self._build(tmp_path, raws)
        whole = _run(tmp_path / "whole.tw", build)
        unreadable = sum(one is None for one in self.messages)
        told = "inputs and dead letters; `messages` holds no value that no path takes, such as None"
        assert (whole.inputs, whole.dead_letters) == (len(raws) - unreadable, unreadable), told
        assert replay(tmp_path / "whole.tw", build).equal, "its replay gives another digest"
        if getattr(self.create(tmp_path), "clock", "data") == "wall":
            return  # it is stamped when it comes: no second run is the same, and the first has been replayed
        times = [one[0] for one in self.messages if one is not None]
        span_s = in_seconds(max(times) - min(times))
        for left in range(_PIECES, 0, -1) if span_s else ():
            _run(tmp_path / "pieces.tw", build, whole.virtual_time_s - span_s * left / _PIECES)
        pieces = _run(tmp_path / "pieces.tw", build)
        assert pieces.digest == whole.digest, (
            f"resumed at {_PIECES} places it is another run: {pieces}, undisturbed {whole}"
        )

    # ------------------------------------------------------------------ how it is done
    def _all(
        self, folder: Path, done: Sequence[Raw] = (), *, limit: int = 1_000, epoch_ns: int = 0, confirming: bool = False
    ) -> tuple[list[Raw], Decoder]:
        """All messages behind those that are ``done``, and their decoder: a life of its own."""
        left = len(self.messages) - len(done) if self.waits else None
        source = self.create(made(folder))
        return perform(live(source, positions(done), limit, left=left, epoch_ns=epoch_ns, confirming=confirming))

    def _build(self, folder: Path, raws: Sequence[Raw]) -> Build:
        times = [one[0] for one in self.messages if one is not None]
        paths = {path for one in self.messages if one is not None for path in one[1]}

        def build(twin: Twin) -> None:
            source = self.create(folder)
            finite = cast("Source", Finite(source, raws)) if self.waits else source
            connect_all(twin, finite, times, paths, narrowly=len(by_partition(raws)) == 1)

        return build


def _skip_without(decoder: Decoder) -> None:
    if isinstance(decoder, Rows):
        pytest.skip("the source gives Readings, which need no decoder: set this test to None")


def _run(journal: Path, build: Build, until_s: float | None = None) -> Summary:
    with open_twin(journal, build, seed=1, batch=1) as twin:
        return twin.run(until=until_s)
