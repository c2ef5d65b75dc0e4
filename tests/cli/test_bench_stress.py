"""``tidewarp bench stress``: that it finds nothing where nothing is wrong, and something where something is."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from tidewarp.cli import main
from tidewarp.cli.bench import stress
from tidewarp.errors import PoolExhausted
from tidewarp.kernel import Options
from tidewarp.kernel.trace import Ledger
from tidewarp.worlds import hurt

Ask = Callable[..., dict[str, Any]]


@pytest.fixture
def ask(capsys: pytest.CaptureFixture[str]) -> Ask:
    def ask(*arguments: str, code: int = 0) -> dict[str, Any]:
        assert main(["bench", "stress", "--tier", "python", *arguments, "--json"]) == code
        document: dict[str, Any] = json.loads(capsys.readouterr().out)
        return document

    return ask


def test_random_configurations_agree_with_the_reference(ask: Ask) -> None:
    """No mismatch, and a good deal of undoing."""
    found = ask("--configs", "12", "--seed", "3")
    assert (found["configs"], found["mismatches"], found["first_mismatch"]) == (12, 0, None)
    assert found["committed"] > 1000
    assert found["rolled_back"] > found["committed"] / 10
    assert found["anti_messages"] > 0


@pytest.mark.nightly
def test_at_least_one_rollback_for_each_committed_event(ask: Ask) -> None:
    """On average: or the stress would say little."""
    found = ask("--configs", "1000")
    assert found["mismatches"] == 0
    assert found["rolled_back"] >= found["committed"]


def test_a_fault_is_found_named_and_repeated(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    """A committed side that loses an event of parallel runs: the case, what parts, where, and the command that shows it again."""
    commit = Ledger.commit
    play = stress.play

    def lossy(self: Ledger, events: Any) -> None:
        commit(self, [event for event in events if event[0] != 7])

    def played(case: hurt.Case, **options: Any) -> hurt.Played:
        with monkeypatch.context() as patch:
            if options["kernel"] != "sequential":
                patch.setattr(Ledger, "commit", lossy)
            return play(case, **options)

    monkeypatch.setattr(stress, "play", played)
    found = ask("--configs", "5", code=1)
    assert found["mismatches"] > 0
    first = found["first_mismatch"]
    assert first["expected"]["digest"] != first["got"]["digest"]
    assert first["got"]["committed"] < first["expected"]["committed"]
    assert first["first_differing_block"]["from_tick"] <= 7 <= first["first_differing_block"]["to_tick"]
    assert first["command"] == f"tidewarp bench stress --seed 1 --case {first['case']} --tier python"
    again = ask(*first["command"].split()[3:], code=1)
    assert (again["configs"], again["mismatches"]) == (1, 1)
    assert again["first_mismatch"] == first


@pytest.mark.parametrize("bounded", [True, False])
def test_a_run_that_stops(bounded: bool, ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    """At its memory bound that is no fault; without a bound it is one."""
    case = next(
        index
        for index in range(1000)
        if (hurt.random_case(1, index).options.get("memory_max_bytes") is not None) == bounded
    )
    play = stress.play

    def stops(case: hurt.Case, **options: Any) -> hurt.Played:
        if options["kernel"] == "sequential":
            return play(case, **options)
        raise PoolExhausted("1 GB", "bound", "raise it")

    monkeypatch.setattr(stress, "play", stops)
    found = ask("--case", str(case), code=0 if bounded else 1)
    assert (found["stopped"], found["stopped_unbounded"], found["mismatches"]) == (1, 0 if bounded else 1, 0)


def test_an_error_of_the_engine_is_a_mismatch(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    """No random model breaks a rule, so whoever says so is wrong."""
    from tidewarp.errors import HandlerError

    play = stress.play

    def fails(case: hurt.Case, **options: Any) -> hurt.Played:
        if options["kernel"] == "sequential":
            return play(case, **options)
        raise HandlerError("a", "b", "c")

    monkeypatch.setattr(stress, "play", fails)
    found = ask("--case", "0", code=1)
    assert found["first_mismatch"]["got"] == "a: b; c"


def test_it_stops_after_its_time(ask: Ask) -> None:
    """No minutes, no configurations."""
    assert ask("--minutes", "0")["configs"] == 0


def test_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    """The same in words."""
    assert main(["bench", "stress", "--configs", "2", "--tier", "python"]) == 0
    assert "2 configurations, 0 mismatches" in capsys.readouterr().out


@pytest.mark.parametrize("index", range(40))
def test_a_case_is_the_same_in_every_life(index: int) -> None:
    """The command in a report shows the same case again; its options are valid."""
    one, other = hurt.random_case(5, index), hurt.random_case(5, index)
    assert one.model.digest() == other.model.digest()
    assert one._replace(model=other.model) == other
    Options(**one.options)
    assert one.options["workers"] <= one.model.n_lps


def test_cases_reach_everything() -> None:
    """All classes and engines, links of each kind, late inputs, publication, bounds: in few cases."""
    cases = [hurt.random_case(2, index) for index in range(150)]
    for case in cases:
        case.model.freeze()
    assert {case.options["kernel"] for case in cases} == {"conservative", "optimistic"}
    assert {len(case.model.classes) for case in cases} == {1, 3, 4}
    assert {bool(case.inputs) for case in cases} == {True, False}
    assert {case.model.links is None for case in cases} == {True, False}
    assert {case.options["workers"] for case in cases} == {1, 2, 3, 4}
    assert {a.publish_every for case in cases for a in case.model.accumulators} == {None, 5}
    assert len({case.options.get("window") for case in cases}) == 7
    assert any(case.options.get("memory_max_bytes") for case in cases)
