"""Whole federations from a number: one thread, no clock, a network and disks that fail. One seed is one run.

Other plans than those of ``test_convergence``, and most of them with stores in files, whose disks fill, tear, flip bits
and fail to fsync. That the harness sees anything at all is shown by mistakes: each that is planted has to be found.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import simulated
from mistakes import LITERAL, MISTAKES, Mistake
from simulated import Disks, Federation, Plan, run

from tidewarp.errors import TidewarpError

PROFILE = os.environ.get("HYPOTHESIS_PROFILE", "")
SEEDS_BY_NIGHT = 10_000
SEEDS_BY_DAY = 50
SEEDS_FOR_A_MISTAKE = 400
THEMES_OF = {
    "a_curator_hides_what_is_here_when_it_arrives": "curating",
    "a_lift_needs_its_tombstone_here": "curating",
    "a_fork_freezes_nobody": "forking",
    "a_name_has_the_value_that_came_last": "naming",
    "the_last_to_arrive_has_the_slot": "naming",
    "a_collection_takes_what_is_linked": "collecting",
    "a_collection_takes_what_is_pinned": "collecting",
    "a_collection_takes_what_is_visible": "collecting",
    "an_fsync_that_failed_is_forgiven": "faults",
    "a_full_disk_is_not_mentioned": "faults",
    "commits_are_not_fsynced": "faults",
    "why_bytes_are_missing_is_not_noted": "collecting",
    "signatures_are_not_checked": "lying",
    "half_a_batch_is_shown_to_nobody": "recovering",
}
"""Where a mistake shows in few plans, those that are about it."""


@pytest.fixture
def disks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Disks]:
    """New ones: what is on them, a mistake may have written."""
    monkeypatch.setattr(simulated, "_beginnings", {})
    with Disks(tmp_path) as made:
        yield made


def play(disks: Disks, seed: int, theme: str = "") -> list[str]:
    """The deeds of a run. Raises whatever does not hold, and says how to see it again."""
    deeds: list[str] = []
    plan = Plan.of_seed(seed)
    try:
        run(disks, plan._replace(theme=theme or plan.theme), deeds.append)
    except Exception as error:
        error.add_note(f"seed {seed}: {', '.join(deeds)}\nagain: python tests/federation/simulated.py {seed}")
        raise
    return deeds


def test_no_seed_finds_anything(disks: Disks, record_property) -> None:
    seeds = SEEDS_BY_NIGHT if PROFILE == "nightly" else SEEDS_BY_DAY
    for seed in range(seeds):
        play(disks, seed)
    record_property("trials", seeds)


def test_one_seed_is_one_run(disks: Disks) -> None:
    """The same deeds, records and states each time."""
    plans = [Plan.of_seed(3)._replace(are_files=files) for files in ((True, False, False), (False, True, True))]
    seen = [run(disks, plan, lambda deed: None) for plan in (*plans, *plans)]
    histories = [(one.states, [node.known for node in one.nodes]) for one in seen]
    assert histories[:2] == histories[2:]
    assert play(disks, 5) == play(disks, 5)


def test_bytes_that_were_erased_meanwhile_are_not_taken(disks: Disks) -> None:
    """They had not come; then somebody erased them, and a peer that does not know still offers them."""
    sites = Federation(disks.take((False,) * 4))
    zero, two, three = sites.nodes[0], sites.nodes[2], sites.nodes[3]
    sites.act("put", zero, 0, 0, 0, 0)
    sites.exchange(three, zero)
    sites.act("erase", three, 0, 0, 0, 0)
    sites.exchange(two, three)
    sites.exchange(two, zero)
    sites.check(two)
    sites.check_agreement()


def found(disks: Disks, mistake: Mistake) -> int | None:
    """After how many seeds the mistake was found; None: never."""
    for seed in range(SEEDS_FOR_A_MISTAKE):
        try:
            play(disks, seed, THEMES_OF.get(mistake.__name__, ""))
        except (AssertionError, TidewarpError):  # what else may be raised is no finding, but a mistake in the mistake
            return seed + 1
    return None


@pytest.mark.parametrize("mistake", LITERAL, ids=lambda one: one.__name__)
def test_the_literal_reading_is_found(disks: Disks, mistake: Mistake, monkeypatch: pytest.MonkeyPatch) -> None:
    """The three ways in which the published draft diverges, planted into what ships."""
    mistake(monkeypatch)
    assert found(disks, mistake) is not None


@pytest.mark.nightly
@pytest.mark.parametrize("mistake", MISTAKES[len(LITERAL) :], ids=lambda one: one.__name__)
def test_a_mistake_is_found(disks: Disks, mistake: Mistake, monkeypatch: pytest.MonkeyPatch, record_property) -> None:
    mistake(monkeypatch)
    seeds = found(disks, mistake)
    assert seeds is not None
    record_property("seeds", seeds)


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda one: one.__name__)
def test_what_a_mistake_takes_the_place_of_is_there(mistake: Mistake, monkeypatch: pytest.MonkeyPatch) -> None:
    """By day too, so that a name that changes does not leave a mistake behind that nobody plants."""
    mistake(monkeypatch)


def test_there_are_twenty_mistakes_and_more() -> None:
    assert len(MISTAKES) >= 20
    assert THEMES_OF.keys() <= {one.__name__ for one in MISTAKES}
    assert all(one is not other for one, other in itertools.combinations(MISTAKES, 2))
