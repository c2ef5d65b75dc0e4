"""The suite for sinks: derive from SinkConformance, and pytest checks your sink against the contract.

    class TestMySink(SinkConformance):
        def create(self, folder):
            return MySink(folder / "outputs.txt")

        def values(self, folder):
            return [float(line) for line in (folder / "outputs.txt").read_text().splitlines()]

The contract is :class:`tidewarp.connect.contract.Sink`. Importing this module needs the extra ``test`` (else MissingExtra).
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from tidewarp.codec import pack
from tidewarp.connect.contract import Output, Refused, RunIdentity, Sink
from tidewarp.errors import OperatorError
from tidewarp.testing.faults import hearing
from tidewarp.testing.suites import made, perform, pytest
from tidewarp.twin import Twin, open_twin, replay

__all__ = ["RUN", "SinkConformance", "output"]

RUN = RunIdentity("ab" * 32, 1_386_018_900 * 10**9)
"""Whose outputs the suite writes."""

_OTHER_RUN = RUN._replace(domain="cd" * 32)
_MANY = 200  # outputs of a batch: more than one system call
_IMAGES = 6  # of the target in the middle of a write
_AWKWARD: Sequence[Any] = [
    None,
    "a\nb\r\0\u2028\"',;\u00e9\U0001f30a",
    float("nan"),
    float("-inf"),
    -0.0,
    2**64 - 1,
    -(2**63),
    b"\xff\0",
    [],
    {"": {"a": [None, {"b": []}]}},
    "x" * 70_000,
]


def output(n: int) -> Output:
    """Output number ``n``, three of them a second; its value is ``n``."""
    tick = n // 3 * 10**9
    return Output(f"{tick:016x}-{n % 3:08x}", tick, "key", pack(n), "", "", n)


class SinkConformance:
    """Tests of one sink. Give :meth:`create` and :meth:`values`; the rest says what else there is to be tested.

    A sink whose ``delivery`` is "once" holds each output once, whatever happened; one that delivers "at_least_once" may hold
    some again after a crash. Neither loses one.
    """

    refused: Any = None
    """A value that the target refuses for good; None if there is no such."""

    def create(self, folder: Path) -> Sink:
        """A new sink, not opened; a second one for the same folder is a later life on the same target."""
        raise NotImplementedError("a suite for a sink needs create(folder)")

    def values(self, folder: Path) -> list[Any]:
        """The values of all outputs that the target of ``folder`` holds, in its order; [] as long as there is no target."""
        raise NotImplementedError("a suite for a sink needs values(folder)")

    def failing(self, folder: Path) -> AbstractContextManager[object]:
        """Within its block every write to the target fails half-way: a full disk, a lost connection."""
        pytest.skip("not tested before the suite defines failing(folder), or sets this test to None")

    def create_broken(self, folder: Path) -> Sink:
        """A sink that cannot be opened: its folder is missing, its server is not there."""
        pytest.skip("not tested before the suite defines create_broken(folder), or sets this test to None")

    # ------------------------------------------------------------------ what it holds
    def test_it_holds_what_was_written_in_order(self, tmp_path: Path) -> None:
        """Each output once, in the order of the ids, and on the target when write() returns."""

        async def life() -> None:
            sink = self.create(tmp_path)
            await sink.open(RUN)
            assert self.values(tmp_path) == [], "open() writes no output"
            for first, end in ((0, 1), (1, 4), (4, _MANY)):
                assert await sink.write(outputs(first, end)) == [], "nothing is refused"
                assert self.values(tmp_path) == [*range(end)], "what write() has taken is on the target when it returns"
            await sink.close()

        perform(life())
        assert self.values(tmp_path) == [*range(_MANY)], "close() adds nothing and takes nothing away"

    def test_open_tells_what_the_target_holds(self, tmp_path: Path) -> None:
        """Nothing ("") of a new target, then the id of the last output that it holds; or always None: it cannot tell."""
        told = [self._live(tmp_path, outputs(0, end))[0] for end in (0, 3, 5, 5)]
        expected = ["", "", output(2).id, output(4).id]
        assert told in (expected, [None] * 4), "the last id of this run on the target, not of what was offered"

    @pytest.mark.parametrize("told", ["", output(1).id])
    def test_what_is_offered_again_is_not_doubled(self, tmp_path: Path, told: str) -> None:
        """Killed between a write and its acknowledgement: the next life is offered all from what was acknowledged on."""
        for end in (2, 5, 5, 9):
            self._live(tmp_path, outputs(0, end), told=told if end > 2 else "")
        self._assert_holds(tmp_path, 9)

    def test_a_write_that_was_torn_is_mended(self, tmp_path: Path) -> None:
        """Killed in the middle of a write, at any place: the next life tells, and drops, exactly what is whole."""
        images: list[Path] = []

        def take(stage: str, arrival: int) -> None:
            if stage == "release.inside" and len(images) < _IMAGES:
                images.append(tmp_path / f"{arrival}")
                shutil.copytree(tmp_path / "live", images[-1])

        with hearing(take):
            self._live(tmp_path / "live", outputs(0, 3), outputs(3, _MANY))
        if not images:
            rule = 'not tested before write() calls tidewarp.observe.stage("release.inside") between its parts'
            pytest.skip(f"{rule}, or the suite sets this test to None")
        for image in images:
            self._live(image, outputs(0, _MANY))
            self._assert_holds(image, _MANY)

    def test_a_failed_write_can_be_tried_again(self, tmp_path: Path) -> None:
        """write() raises OSError; the same batch again, in this life or the next, is neither lost nor doubled."""

        async def life(first: int) -> None:
            sink = self.create(tmp_path)
            told = await sink.open(RUN)
            batch = [one for one in outputs(first, first + _MANY) if one.id > (told or "")]
            for _ in range(2):
                with self.failing(tmp_path), pytest.raises(OSError):
                    await sink.write(batch)
            if first:
                assert await sink.write(batch) == []
            await sink.close()

        perform(life(0))
        self._live(tmp_path, outputs(0, _MANY))
        perform(life(_MANY))
        self._assert_holds(tmp_path, 2 * _MANY)  # before all is offered again, which would hide a loss
        self._live(tmp_path, outputs(0, 2 * _MANY))
        self._assert_holds(tmp_path, 2 * _MANY)

    def test_what_the_target_refuses_is_returned_and_the_rest_is_held(self, tmp_path: Path) -> None:
        """One bad output costs no other: write() returns a Refused with its id and a reason, now and when offered again."""
        if self.refused is None:
            pytest.skip("not tested before the suite defines `refused`, or sets this test to None")
        batch = [output(0), output(1)._replace(value=pack(self.refused)), output(2)]
        for life in range(2):
            told, refused = self._live(tmp_path, batch)
            assert [one.id for one in refused] in ([batch[1].id], [] if life and told else [batch[1].id])
            assert all(one.reason for one in refused), "a reason for people"
        held = self.values(tmp_path)
        assert (held if self._is_once(tmp_path) else held[:2]) == [0, 2], "the others of the batch are held"

    def test_any_value_is_written_or_refused(self, tmp_path: Path) -> None:
        """No published value ends a run: NaN, bytes, 2^64 - 1, line ends, a long text; the output behind it arrives."""
        awkward = [output(n)._replace(value=pack(value)) for n, value in enumerate(_AWKWARD)]
        self._live(tmp_path, awkward, [output(len(awkward))])
        assert self.values(tmp_path)[-1] == len(awkward)

    # ------------------------------------------------------------------ life
    def test_close_may_come_at_any_time(self, tmp_path: Path) -> None:
        """Before open, after it, after a write, and twice."""

        async def life(steps: int) -> None:
            sink = self.create(tmp_path)
            if steps > 0:
                await sink.open(RUN)
            if steps > 1:
                await sink.write(outputs(0, 3))
            await sink.close()
            await sink.close()

        for steps in range(3):
            perform(life(steps))
        self._assert_holds(tmp_path, 3)

    def test_what_cannot_be_opened_says_so(self, tmp_path: Path) -> None:
        """open() raises an OperatorError with value, rule and next action; closing is safe all the same."""

        async def life() -> None:
            sink = self.create_broken(tmp_path)
            with pytest.raises(OperatorError):
                await sink.open(RUN)
            await sink.close()
            await sink.close()

        perform(life())

    def test_the_outputs_of_another_run_are_no_outputs_of_this_one(self, tmp_path: Path) -> None:
        """Ids mean something within one run: the target of another is refused (OperatorError), or its outputs kept apart."""
        self._live(tmp_path, outputs(0, 3))
        if not self._is_once(tmp_path):
            pytest.skip('who delivers "at_least_once" promises nothing here: set this test to None')
        try:
            told, _ = self._live(tmp_path, outputs(_MANY, _MANY + 3), run=_OTHER_RUN)
        except OperatorError:
            assert self.values(tmp_path) == [0, 1, 2], "what is refused is left as it was"
        else:
            assert told in ("", None), "of this run the target holds nothing yet"
            told, _ = self._live(tmp_path, outputs(0, 4))
            assert told in (output(2).id, None), "the last id of its own run"
            assert [one for one in self.values(tmp_path) if one < _MANY] == [0, 1, 2, 3]

    def test_it_says_what_it_is(self, tmp_path: Path) -> None:
        """Its name and kind are printable text, its delivery is "once" or "at_least_once"."""
        sink = self.create(tmp_path)
        assert all(type(text) is str and text.isprintable() and text for text in (sink.name, sink.kind))
        assert sink.delivery in ("once", "at_least_once")

    def test_a_twin_delivers_to_it_and_a_replay_does_not(self, tmp_path: Path) -> None:
        """Stopped and resumed, a run leaves what it published on the target, in order; its replay writes nothing."""

        def build(twin: Twin) -> None:
            def speak() -> Any:
                for n in range(20):
                    twin.publish_event("n", n)
                    yield twin.env.timeout(0.5)

            twin.process(speak())
            twin.sink(self.create(made(tmp_path / "target")), batch=3)

        for until_s in (3, 3, 7.5, None):
            with open_twin(tmp_path / "a.tw", build) as twin:
                twin.run(until=until_s)
        held = self.values(tmp_path / "target")
        self._assert_holds(tmp_path / "target", 20)
        assert replay(tmp_path / "a.tw", build).equal
        assert self.values(tmp_path / "target") == held, "only open() may touch the target: a replay calls nothing"

    # ------------------------------------------------------------------ how it is done
    def _live(
        self, folder: Path, *batches: Sequence[Output], told: str = "", run: RunIdentity = RUN
    ) -> tuple[str | None, list[Refused]]:
        """One life: the batches, but for what the sink, or else ``told``, says is held. What it told, what it refused."""

        async def life() -> tuple[str | None, list[Refused]]:
            sink = self.create(made(folder))
            refused: list[Refused] = []
            try:
                last = await sink.open(run)
                for batch in batches:
                    fresh = [one for one in batch if one.id > (told if last is None else last)]
                    refused += await sink.write(fresh) if fresh else []
            finally:
                await sink.close()
            return last, refused

        return perform(life())

    def _is_once(self, folder: Path) -> bool:
        return self.create(folder).delivery == "once"

    def _assert_holds(self, folder: Path, end: int) -> None:
        held = self.values(folder)
        if not self._is_once(folder):
            held = list(dict.fromkeys(held))
        assert held == [*range(end)], "each output is held, in order, and once where that is promised"


def outputs(first: int, end: int) -> list[Output]:
    """Outputs number ``first`` to ``end`` - 1."""
    return [output(n) for n in range(first, end)]
