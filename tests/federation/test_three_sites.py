"""Three sites in three processes, HTTP between them: cut off, healed, killed at every statement; at the end all agree.

The site that is killed pulls from one that relays the third. ``HYPOTHESIS_PROFILE=nightly`` kills at every statement
that writes and at every stage of a block; by day at some of them.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sites import SOURCES, Killed, Site, Wire, wired

pytestmark = pytest.mark.proof("three sites, cut off and killed anywhere, lose nothing and agree")

NAMES = ("A", "B", "C")
KILLS_BY_DAY = 4
CUTS_BY_DAY = 5
BLOCK = 140_000  # bytes: it travels alone, and has a file of its own
Record = Callable[[str, object], None]


@pytest.fixture
def three(tmp_path: Path) -> Iterator[tuple[list[Site], list[Wire]]]:
    with wired(*(tmp_path / name for name in NAMES)) as made:
        yield made


def write(site: Site, word: str) -> list[str]:
    """A small artifact, one that travels alone, and one that is withdrawn again; their references."""
    found = site("put", [word, 1], [f"{word}, long ", BLOCK // 8], [f"{word}, withdrawn", 1])
    site("tombstone", found[2])
    return found


def pulled(site: Site, wire: Wire) -> dict[str, object]:
    report = site("pull", wire.url)
    assert report["conflicts"] == 0
    return report


def drained(sites: list[Site], wires: list[Wire]) -> None:
    """Pull in a ring until nobody gets anything more."""
    news = True
    while news:
        news = False
        for site, wire in zip(sites, wires[1:] + wires[:1], strict=True):
            report = pulled(site, wire)
            assert report["incomplete"] == ""
            news |= report["records"] != 0


def agree(sites: list[Site], records: int) -> None:
    """All hold the same records, so many, and have the same state."""
    held = [one("held") for one in sites]
    assert all(one == held[0] for one in held)
    assert sum(map(len, held[0].values())) == records
    assert len({one("state") for one in sites}) == 1


def digest(path: Path) -> dict[str, object]:
    """What the command says of a store that nobody has open."""
    done = subprocess.run(
        [sys.executable, "-m", "tidewarp", "store", "digest", str(path), "--json"],
        env={**os.environ, "PYTHONPATH": SOURCES},
        capture_output=True,
        check=True,
    )
    return json.loads(done.stdout)


def test_cut_off_and_healed(three, tmp_path: Path) -> None:
    """C is cut off while all go on writing; healed, all have everything, and the command prints one state hash."""
    (a, b, c), wires = three
    written = [write(site, name) for site, name in zip((a, b, c), NAMES, strict=True)]
    drained([a, b, c], wires)
    agree([a, b, c], 12)
    wires[2].cut()
    written += [write(site, f"{name}, alone") for site, name in zip((a, b, c), NAMES, strict=True)]
    assert pulled(b, wires[0])["records"] == 4
    assert pulled(a, wires[1])["records"] == 4
    report = pulled(b, wires[2])  # what is cut off is said, and takes nothing away
    assert (report["records"], report["answered"]) == (0, False)
    assert a("state") == b("state") != c("state")
    wires[2].heal()
    drained([a, b, c], wires)
    agree([a, b, c], 24)
    for site, (small, long, _) in itertools.product((a, b, c), written):
        assert bytes.fromhex(site("get", small))
        assert len(site("get", long)) > BLOCK
    for site in (a, b, c):
        site.close()
    said = [digest(tmp_path / name) for name in NAMES]
    assert len({one["state_hash"] for one in said}) == 1
    assert said[0] == said[1] == said[2]


def test_nothing_to_do_is_one_question(three) -> None:
    """Each of the six ways: one request, and no record; also for a site that was started anew."""
    sites, wires = three
    for site, name in zip(sites, NAMES, strict=True):
        write(site, name)
    drained(sites, wires)
    for site, wire in itertools.product(sites, wires):
        if wires[sites.index(site)] is wire:
            continue
        for _ in range(2):
            wire.heal()
            report = pulled(site, wire)
            assert (report["records"], report["incomplete"], wire.requests) == (0, "", 1)
    a, b, _ = sites
    b.close()
    with Site(b.path) as again:
        wires[0].heal()
        assert pulled(again, wires[0])["records"] == 0
        assert wires[0].requests == 1
        assert again("state") == a("state")


def cut_places(whole: int) -> list[int]:
    """After how many bytes of answers a wire breaks: by day a few places, at night each 997th byte."""
    is_nightly = os.environ.get("HYPOTHESIS_PROFILE") == "nightly"
    return [*range(1, whole, 997 if is_nightly else whole // CUTS_BY_DAY), whole - 1]


def test_a_wire_that_breaks_in_the_middle(three, record_property: Record) -> None:
    """What came before is kept or not; the next pull brings what is missing, and only the truth was ever taken."""
    (a, b, c), wires = three
    write(a, "A")
    pulled(b, wires[0])
    whole = wires[0].answered
    places = cut_places(whole)
    for n, let in enumerate(places):
        before = len(b("held").get(a.domain, []))
        write(a, f"A, time {n}")
        wires[0].heal(let)
        broken = pulled(b, wires[0])
        assert broken["incomplete"] or broken["records"] == 4  # more than was needed was let through
        now = a("held")[a.domain]
        assert b("held").get(a.domain, []) == now[: before + int(broken["records"])]
        wires[0].heal()
        assert pulled(b, wires[0])["incomplete"] == ""
        assert b("state") == a("state")
    assert whole > BLOCK
    drained([a, b, c], wires)
    agree([a, b, c], 4 * (len(places) + 1))
    record_property("trials", len(places))


def kill_at(sites: list[Site], wires: list[Wire], victim: int, step: int) -> bool:
    """One round: all write, C pulls from B what B relays and has, and ``victim`` dies at that step; then all is mended.

    Returns whether it died, or had fewer steps to do. Nothing is lost, cursors are not beyond the records.
    """
    for site, name in zip(sites, NAMES, strict=True):
        write(site, f"{name}, round {step} of {victim}")
    pulled(sites[1], wires[0])  # and nobody has asked B for its head yet
    whole = {one: len(hashes) for one, hashes in sites[1]("held").items()}
    before = sites[2]("held")
    sites[victim]("arm", step)
    died = True
    try:
        pulled(sites[2], wires[1])
        died = victim != 2 and _is_dead(sites[victim])
    except Killed:
        assert victim == 2
    if not died:
        sites[victim].kill()  # right behind the last step
    sites[victim] = Site(sites[victim].path)
    wires[victim].lead_to(sites[victim].url)
    held = sites[2]("held")
    truth = {**sites[1]("held"), **{one: before[one] for one in before if one not in whole}}
    for domain, hashes in held.items():
        assert len(hashes) >= len(before.get(domain, []))
        if domain != sites[2].domain:
            assert hashes == truth[domain][: len(hashes)]
    for domain, (seq, hash_) in sites[2]("cursors", wires[1].url).items():
        assert held[domain][seq - 1] == hash_
    pulled(sites[2], wires[1])
    drained(sites, wires)
    return died


def _is_dead(site: Site) -> bool:
    try:
        site("steps")
    except Killed:
        return True
    return False


def steps_of(sites: list[Site], wires: list[Wire], victim: int, word: str) -> int:
    """How many steps ``victim`` has to do in a round in which nobody dies."""
    for site, name in zip(sites, NAMES, strict=True):
        write(site, f"{name}, {word}")
    pulled(sites[1], wires[0])  # and nobody has asked B for its head yet
    sites[victim]("arm", None)
    pulled(sites[2], wires[1])
    count = sites[victim]("steps")
    drained(sites, wires)
    return count


def rounds(three, victim: int, *, is_all: bool, record_property: Record, tmp_path: Path) -> None:
    """Rounds with a kill at some steps or at all; at the end the command says one state hash of all three stores."""
    sites, wires = three
    steps_of(sites, wires, victim, "at first")  # there are tables to be made
    steps = steps_of(sites, wires, victim, "before")
    assert steps > 3
    tried = killed = 0
    try:
        for step in range(1, 2 * steps) if is_all else some(steps - 2):
            died = kill_at(sites, wires, victim, step)
            tried, killed = tried + 1, killed + died
            if not died:
                break
        assert killed >= (steps - 3 if is_all else len(some(steps - 2)))  # not each round has as many
        assert tried == killed + is_all
        agree(sites, 12 * (tried + 2))
    finally:
        for site in sites:
            site.close()
    assert len({digest(tmp_path / name)["state_hash"] for name in NAMES}) == 1
    record_property("trials", tried)


def some(steps: int) -> list[int]:
    return sorted({1 + n * (steps - 1) // (KILLS_BY_DAY - 1) for n in range(KILLS_BY_DAY)})


VICTIM = pytest.mark.parametrize("victim", [2, 1], ids=["the one that pulls", "the one that serves"])


@VICTIM
def test_killed_at_some_statements(three, victim, record_property: Record, tmp_path: Path) -> None:
    """The first, the last, and some between."""
    rounds(three, victim, is_all=False, record_property=record_property, tmp_path=tmp_path)


@pytest.mark.nightly
@VICTIM
def test_killed_at_every_statement(three, victim, record_property: Record, tmp_path: Path) -> None:
    """Each statement that writes, each stage of a block, and right behind the last."""
    rounds(three, victim, is_all=True, record_property=record_property, tmp_path=tmp_path)
