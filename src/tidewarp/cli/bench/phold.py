"""``tidewarp bench phold``: the classical benchmark of Time Warp, beside the same model on SimPy."""

from __future__ import annotations

import cProfile
import gc
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import click

from tidewarp.cli.bench.kernel_options import duration, engine_options, figures_of, options_of, peak_rss_bytes
from tidewarp.cli.bench.ranks import launch_ranks, rank_options, saving_of, speaking
from tidewarp.cli.frame import emit, json_option
from tidewarp.clocks import WallClock
from tidewarp.errors import MissingExtra, OperatorError
from tidewarp.kernel import Engine, Model, Options, Result, run
from tidewarp.kernel.objects import initial_image
from tidewarp.units import seconds
from tidewarp.worlds.phold import phold

__all__ = ["command", "measure"]

ROSS = {"remote": 0.25, "mean": seconds(1), "lookahead": seconds(1), "events_per_lp": 1}
"""PHOLD as the engine ROSS ships it; 8 LPs for each PE."""
ROSS_LPS_PER_PE = 8


@click.command()
@engine_options
@click.option("--lps", type=click.IntRange(1, 2**31 - 1), default=1024, show_default=True, help="Processes.")
@click.option(
    "--events-per-lp", type=click.IntRange(0, 2**20), default=16, show_default=True, help="Balls per process."
)
@click.option("--remote", type=float, default=0.1, show_default=True, help="Share of balls sent to a random process.")
@click.option(
    "--lookahead", type=duration, metavar="DUR", default="0.1", show_default=True, help="Least delay of a ball."
)
@click.option("--mean", type=duration, metavar="DUR", default="0.9", show_default=True, help="Mean delay on top of it.")
@click.option("--end", type=duration, metavar="DUR", default="200", show_default=True, help="Virtual time to run to.")
@click.option(
    "--grain", type=click.IntRange(0, 10**6), default=0, show_default=True, help="Rounds of extra work per event."
)
@click.option(
    "--payload-bytes",
    type=click.IntRange(8, 4096),
    default=8,
    show_default=True,
    help="Size of a message's fields; a multiple of 8.",
)
@click.option(
    "--state-bytes",
    type=click.IntRange(16, 2**19),
    default=16,
    show_default=True,
    help="Size of a process's fields; a multiple of 8.",
)
@click.option("--seed", type=click.IntRange(0, 2**64 - 1), default=1, show_default=True, help="Of all random numbers.")
@click.option(
    "--preset",
    type=click.Choice(["ross"]),
    help="ROSS's own PHOLD, where nothing else is said: 8 LPs per PE, one ball each.",
)
@click.option(
    "--repeat", type=click.IntRange(1, 1000), default=1, show_default=True, help="Rounds; the figures are of the best."
)
@click.option("--verify", is_flag=True, help="A sequential run afterwards; exit 1 if its digest differs.")
@click.option("--reference", type=click.Choice(["simpy"]), help="The same PHOLD on SimPy, in turn with each round.")
@click.option(
    "--profile",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write a cProfile of one more round here (Python tier).",
)
@rank_options
@json_option
@click.pass_context
def command(ctx: click.Context, /, as_json: bool, **values: Any) -> int:
    """Balls that hop between processes: how many events a second, and how many were rolled back.

    ``seconds`` is the run alone; ``compile_seconds`` is what compiled code takes to be read or made. ``ratio`` is the median over the rounds of SimPy's time for an
    event by ours; SimPy's form is its fastest: a timeout with a callback for each hop, its random numbers drawn by numpy
    in blocks, the same hash. The digest does not depend on kernel, tier, workers, or any other option of execution.
    """
    if values["preset"] == "ross":
        _apply_preset(ctx, values)
    if values["launch"] is not None:
        document = launch_ranks(ctx, values, model_of(values))
        emit(document, as_json, _render)
        return 1 if document["verified"] is False else 0
    code = 0
    with speaking(ctx, values["transport"]) as speaks:
        document = measure(values)
        if speaks:
            emit(document, as_json, _render)
            code = 1 if document["verified"] is False else 0
    return code


def _apply_preset(ctx: click.Context, values: dict[str, Any]) -> None:
    given = {"lps": ROSS_LPS_PER_PE * values["workers"], **ROSS}
    default = click.core.ParameterSource.DEFAULT
    values |= {name: value for name, value in given.items() if ctx.get_parameter_source(name) is default}


def measure(values: Mapping[str, Any]) -> dict[str, Any]:
    """The document of the command from its parameters.

    Raises:
        OperatorError: a value that breaks its rule.
        MissingExtra: SimPy or Numba is not installed.
    """
    options = options_of(values)
    _check(values, options)
    reference = _reference(values)
    compile_s = _open(values, options)
    rounds: list[Result] = []
    theirs_s: list[float] = []  # for one event
    for _ in range(values["repeat"]):
        gc.collect()
        rounds.append(run(model_of(values), values["end"], **vars(options), **saving_of(values)))
        theirs_s += [reference()] if reference is not None else []
    best = max(rounds, key=lambda result: result.events_per_s)
    if values["profile"] is not None:
        _profile(values, options)
    return {
        **figures_of(best, options),
        "compile_seconds": compile_s,
        "peak_rss_bytes": peak_rss_bytes(),
        "runs": [_brief(result) for result in rounds],
        "checkpoints": best.checkpoints,
        "recovered": 0,
        "seed": values["seed"],
        "verified": _verified(values, options, rounds),
        "reference_events_per_s": 1.0 / min(theirs_s) if theirs_s and min(theirs_s) > 0.0 else None,
        "ratio": median(map(_times_faster, rounds, theirs_s)) if theirs_s else None,
    }


def _times_faster(result: Result, theirs_s: float) -> float:
    return theirs_s * result.events_per_s


def model_of(values: Mapping[str, Any]) -> Model:
    """The model that the parameters describe."""
    return phold(
        lps=values["lps"],
        population=values["events_per_lp"],
        remote=values["remote"],
        lookahead=values["lookahead"],
        mean=values["mean"],
        grain=values["grain"],
        seed=values["seed"],
        payload_bytes=values["payload_bytes"],
        state_bytes=values["state_bytes"],
    )


def _check(values: Mapping[str, Any], options: Options) -> None:
    if not 0.0 <= values["remote"] <= 1.0:
        raise OperatorError(f"--remote {values['remote']}", "a share is from 0 to 1", "correct it")
    if values["mean"] < 1:
        raise OperatorError("--mean 0", "a mean is above 0", "give e.g. 0.9")
    for name in ("payload_bytes", "state_bytes"):
        if values[name] % 8:
            raise OperatorError(f"--{name.replace('_', '-')} {values[name]}", "it is a multiple of 8", "round it up")
    if values["verify"] and options.digest == "off":
        raise OperatorError("--verify with --digest off", "there is nothing to compare", "leave one of both out")
    if values["profile"] is not None and options.tier != "python":
        raise OperatorError(
            "--profile with --tier compiled", "cProfile sees interpreted code alone", "add --tier python"
        )


def _open(values: Mapping[str, Any], options: Options) -> float:
    """Open an engine and close it: wall seconds that compiled code takes to be read, or made."""
    model = model_of(values)
    image = initial_image(model)
    clock = WallClock()
    started_s = clock.now()
    with Engine(model, options, image=image):
        return clock.now() - started_s


def _brief(result: Result) -> dict[str, Any]:
    return {
        "seconds": result.seconds,
        "events_per_s": result.events_per_s,
        "rolled_back": result.rolled_back,
        "digest": result.digest,
    }


def _verified(values: Mapping[str, Any], options: Options, rounds: Sequence[Result]) -> bool | None:
    """Whether all rounds, and with ``--verify`` the sequential run, have one digest; None if nobody asked and they have."""
    digests = {result.digest for result in rounds}
    if values["verify"]:
        digests.add(run(model_of(values), values["end"], tier=options.tier, digest=options.digest).digest)
    return False if len(digests) > 1 else (values["verify"] or None)


def _profile(values: Mapping[str, Any], options: Options) -> None:
    profiler = cProfile.Profile()
    with Engine(model_of(values), options) as engine:
        profiler.runcall(engine.advance, values["end"])
    profiler.dump_stats(values["profile"])


def _reference(values: Mapping[str, Any]) -> Callable[[], float] | None:
    """Runs the same PHOLD elsewhere and gives its wall seconds for one event."""
    if values["reference"] is None:
        return None
    try:
        from tidewarp.cli.bench.phold_simpy import Reference
    except ImportError as error:
        raise MissingExtra("--reference simpy", "SimPy is not installed", "pip install simpy") from error
    return lambda: Reference(values).seconds_per_event()


def _render(document: Mapping[str, Any]) -> str:
    how = f"{document['kernel']}, {document['tier']}, {document['workers']} workers"
    lines = [
        f"{document['events_per_s']:,.0f} events/s   {how}",
        f"committed    {document['committed']:,} in {document['seconds']:.3f} s",
        f"rolled back  {document['rolled_back']:,} ({document['rolled_back_share']:.2%}) in {document['rollbacks']:,} rollbacks",
        f"GVT rounds   {document['gvt_rounds']:,}",
        f"opened in    {document['compile_seconds']:.2f} s",
        f"digest       {document['digest']}",
    ]
    if document["ratio"] is not None:
        lines.append(f"beside SimPy {document['ratio']:.1f}x its {document['reference_events_per_s']:,.0f} events/s")
    if document["verified"] is not None:
        lines.append(
            "verified     "
            + ("the sequential run has the same digest" if document["verified"] else "NO: digests differ")
        )
    return "\n".join(lines)
