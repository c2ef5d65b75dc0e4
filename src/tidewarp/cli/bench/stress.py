"""``tidewarp bench stress``: random cases of a model made to hurt, each against the sequential reference."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import click

from tidewarp.cli.bench.kernel_options import wall_time
from tidewarp.cli.frame import emit, json_option
from tidewarp.cli.progress import ProgressBar
from tidewarp.clocks import WallClock
from tidewarp.errors import MissingExtra, PoolExhausted, TidewarpError
from tidewarp.worlds.hurt import Case, Played, play, random_case

__all__ = ["command"]


@dataclass
class Tally:
    """What was found so far."""

    configs: int = 0
    mismatches: int = 0
    stopped: int = 0
    stopped_unbounded: int = 0
    committed: int = 0
    rolled_back: int = 0
    anti_messages: int = 0
    first_mismatch: dict[str, Any] | None = field(default=None)

    def take(self, played: Played) -> None:
        """Count what one run did."""
        self.committed += played.committed
        self.rolled_back += played.stats.rolled_back
        self.anti_messages += played.stats.anti_messages


@click.command()
@click.option("--configs", type=click.IntRange(0), default=1000, show_default=True, help="Random configurations.")
@click.option("--seed", type=click.IntRange(0, 2**64 - 1), default=1, show_default=True, help="Of all of them.")
@click.option("--minutes", type=wall_time, help="Stop after so many minutes of wall time.")
@click.option(
    "--tier",
    type=click.Choice(["python", "compiled", "both"]),
    help="Tiers to check against the reference.  [default: both, python without Numba]",
)
@click.option("--case", "only", type=click.IntRange(0), metavar="I", help="This configuration alone, again.")
@json_option
def command(configs: int, seed: int, minutes: float | None, tier: str | None, only: int | None, as_json: bool) -> int:
    """Run random configurations of a model made to hurt; every digest must be that of the sequential reference.

    Times tie, sends have no delay, windows are a tick or without end, inputs come late: correctness must not depend on
    going well. ``stopped`` counts runs that ended at their memory bound, which is no fault. Ends with 1 if a digest differs, or a
    run without a bound stopped; ``first_mismatch`` says which, where the runs part, and how to repeat it.
    """
    clock = WallClock()
    started_s = clock.now()
    end_s = None if minutes is None else started_s + 60.0 * minutes
    tally = Tally()
    cases = range(configs) if only is None else range(only, only + 1)
    with ProgressBar("stress", quiet=as_json) as bar:
        for index in cases:
            if end_s is not None and clock.now() >= end_s:
                break
            for one in _tiers(tier):
                _check(tally, seed, index, one)
            tally.configs += 1
            bar.progress(tally.configs, len(cases))
    document = {**vars(tally), "seconds": clock.now() - started_s, "seed": seed}
    emit(document, as_json, _render)
    return 1 if tally.mismatches or tally.stopped_unbounded else 0


def _tiers(tier: str | None) -> list[str]:
    has_numba = importlib.util.find_spec("numba") is not None
    if tier in ("compiled", "both") and not has_numba:
        raise MissingExtra(f"--tier {tier}", "Numba is not installed", "pip install 'tidewarp[fast]'")
    if tier in ("python", "compiled"):
        return [tier]
    return ["python", "compiled"] if has_numba else ["python"]


def _check(tally: Tally, seed: int, index: int, tier: str) -> None:
    case = random_case(seed, index)
    expected = play(case, kernel="sequential", tier="python")
    try:
        got = play(case, **case.options, tier=tier)
    except PoolExhausted:
        tally.stopped += 1
        tally.stopped_unbounded += case.options.get("memory_max_bytes") is None
        return
    except TidewarpError as error:
        _report(tally, seed, index, tier, case, expected, error)
        return
    tally.take(got)
    if (got.digest, got.committed, got.outputs) != (expected.digest, expected.committed, expected.outputs):
        _report(tally, seed, index, tier, case, expected, got)


def _report(
    tally: Tally, seed: int, index: int, tier: str, case: Case, expected: Played, got: Played | TidewarpError
) -> None:
    tally.mismatches += 1
    if tally.first_mismatch is None:
        tally.first_mismatch = {
            "case": index,
            "tier": tier,
            "options": dict(case.options),
            "lps": case.model.n_lps,
            "until": case.until,
            "expected": _shown(expected),
            "got": str(got) if isinstance(got, TidewarpError) else _shown(got),
            "first_differing_block": None if isinstance(got, TidewarpError) else _first_block(case, expected, got),
            "command": f"tidewarp bench stress --seed {seed} --case {index} --tier {tier}",
        }


def _shown(played: Played) -> dict[str, Any]:
    return {
        "digest": played.digest,
        "committed": played.committed,
        "outputs": len(played.outputs),
        "accumulators": played.accumulators,
    }


def _first_block(case: Case, expected: Played, got: Played) -> dict[str, int] | None:
    """Where the committed events part: the block, its first and last tick; None if only outputs or states differ."""
    blocks = sorted(expected.trace_digests.keys() | got.trace_digests.keys())
    for block in blocks:
        if expected.trace_digests.get(block) != got.trace_digests.get(block):
            interval = case.model.trace_interval
            return {"block": block, "from_tick": block * interval, "to_tick": (block + 1) * interval - 1}
    return None


def _render(document: Mapping[str, Any]) -> str:
    share = document["rolled_back"] / max(document["committed"], 1)
    lines = [
        f"{document['configs']:,} configurations, {document['mismatches']} mismatches, {document['stopped']} stopped at their memory bound",
        f"committed    {document['committed']:,} events in {document['seconds']:.1f} s",
        f"rolled back  {document['rolled_back']:,} ({share:.2f} per committed), {document['anti_messages']:,} anti-messages",
    ]
    if (found := document["first_mismatch"]) is not None:
        lines += [f"{key:<12} {found[key]}" for key in ("case", "options", "expected", "got", "first_differing_block")]
        lines.append(f"again        {found['command']}")
    return "\n".join(lines)
