"""``tidewarp bench phold``: the classical benchmark of Time Warp, beside the same model on SimPy and on the sequential engine."""

from __future__ import annotations

import cProfile
import gc
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import click

from tidewarp.cli.bench.kernel_options import duration, engine_options, figures_of, options_of, peak_rss_bytes
from tidewarp.cli.bench.ranks import launch_ranks, rank_options, saving_of, speaking, speaks_now, surviving
from tidewarp.cli.frame import EXIT_INTERRUPTED, emit, json_option
from tidewarp.clocks import WallClock
from tidewarp.errors import MissingExtra, OperatorError
from tidewarp.kernel import Engine, Interrupted, Model, Options, Result, run
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
@click.option(
    "--reference",
    type=click.Choice(["simpy", "sequential"]),
    multiple=True,
    help="The same PHOLD on SimPy, or on our sequential engine in the same tier, in turn with each round; may be repeated.",
)
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

    ``seconds`` is the run alone; ``compile_seconds`` is what compiled code takes to be read or made. ``ratio`` is the median over the rounds of the reference's
    time for an event by ours, of the first reference where there are two; ``references`` has it for each. SimPy's form is its fastest: a timeout with a
    callback for each hop, its random numbers drawn by numpy in blocks, the same hash. The digest does not depend on kernel,
    tier, workers, or any other option of execution. An interrupt ends with 130 and how far the run has come.
    """
    if values["preset"] == "ross":
        _apply_preset(ctx, values)
    if values["launch"] is not None:
        document = launch_ranks(ctx, values, model_of(values))
        if "interrupted" in document:
            emit(document, as_json, _render_interrupted)
            return EXIT_INTERRUPTED
        emit(document, as_json, _render)
        return 1 if document["verified"] is False else 0
    code = 0
    with speaking(ctx, values["transport"]):
        try:
            document = measure(values)
        except Interrupted as stop:
            if not speaks_now(values["transport"]):
                return 0  # for mpiexec, which answers with the code of rank 0 then
            emit(_interrupted(stop, values["seed"]), as_json, _render_interrupted)
            return EXIT_INTERRUPTED
        if speaks_now(values["transport"]):
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
        Interrupted: Ctrl-C.
    """
    options = options_of(values)
    _check(values, options)
    references = {name: _reference(name, values, options) for name in dict.fromkeys(values["reference"])}
    compile_s = _open(values, options)
    rounds: list[Result] = []
    theirs_s: dict[str, list[float]] = {name: [] for name in references}  # for one event
    digests: set[str | None] = set()

    def run_from(resume: Path | None) -> Result:
        return run(model_of(values), values["end"], **vars(options), **{**saving_of(values), "resume": resume})

    for _ in range(values["repeat"]):
        gc.collect()
        result, deaths = surviving(values, model_of(values), run_from)
        rounds.append(result)
        for name, reference in references.items():
            seconds_per_event, digest = reference()
            theirs_s[name].append(seconds_per_event)
            digests |= {digest} if digest is not None else set()
    best = max(rounds, key=lambda result: result.events_per_s)
    if values["profile"] is not None:
        _profile(values, options)
    return {
        **figures_of(best, options),
        "compile_seconds": compile_s,
        "peak_rss_bytes": peak_rss_bytes(),
        "runs": [_brief(result) for result in rounds],
        "checkpoints": best.checkpoints,
        **deaths,
        "seed": values["seed"],
        "verified": _verified(values, options, rounds, digests),
        **_compared(rounds, theirs_s),
    }


def _compared(rounds: Sequence[Result], theirs_s: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    """Each reference's rate in its best round, and how many times as fast as it we are: the median over the rounds."""
    references = {
        name: {
            "events_per_s": 1.0 / min(each_s) if min(each_s) > 0.0 else None,
            "ratio": median(result.events_per_s * one_s for result, one_s in zip(rounds, each_s, strict=True)),
        }
        for name, each_s in theirs_s.items()
    }
    first = next(iter(references.values()), {"events_per_s": None, "ratio": None})
    return {"reference_events_per_s": first["events_per_s"], "ratio": first["ratio"], "references": references}


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


def _verified(
    values: Mapping[str, Any], options: Options, rounds: Sequence[Result], reference: set[str | None]
) -> bool | None:
    """Whether all rounds, the sequential ``reference`` and, with ``--verify``, a sequential run have one digest.

    None if nobody asked, and the rounds have.
    """
    digests = {result.digest for result in rounds} | reference
    if values["verify"] and not reference:
        digests.add(_run_sequential(values, options).digest)
    return False if len(digests) > 1 else (values["verify"] or bool(reference) or None)


def _run_sequential(values: Mapping[str, Any], options: Options) -> Result:
    return run(model_of(values), values["end"], tier=options.tier, digest=options.digest)


def _profile(values: Mapping[str, Any], options: Options) -> None:
    profiler = cProfile.Profile()
    with Engine(model_of(values), options) as engine:
        profiler.runcall(engine.advance, values["end"])
    profiler.dump_stats(values["profile"])


def _reference(name: str, values: Mapping[str, Any], options: Options) -> Callable[[], tuple[float, str | None]]:
    """Runs the same PHOLD elsewhere and gives its wall seconds for one event, and its digest if it has one."""
    if name == "sequential":

        def run_sequential() -> tuple[float, str | None]:
            result = _run_sequential(values, options)
            return result.seconds / max(result.committed, 1), result.digest

        return run_sequential
    try:
        from tidewarp.cli.bench.phold_simpy import Reference
    except ImportError as error:
        raise MissingExtra("--reference simpy", "SimPy is not installed", "pip install simpy") from error
    return lambda: (Reference(values).seconds_per_event(), None)


def _interrupted(stop: Interrupted, seed: int) -> dict[str, Any]:
    return {
        "interrupted": True,
        "exit": EXIT_INTERRUPTED,
        "virtual_time_s": stop.gvt / 1e9,
        "committed": stop.committed,
        "seconds": stop.seconds,
        "checkpoint": stop.checkpoint,
        "seed": seed,
    }


def _render_interrupted(document: Mapping[str, Any]) -> str:
    saved = document["checkpoint"]
    return (
        f"interrupted at {document['virtual_time_s']:,.3f} s of virtual time, {document['committed']:,} events committed in "
        f"{document['seconds']:.1f} s; " + (f"resume with --resume {saved}" if saved else "no checkpoint")
    )


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
    for name, reference in document["references"].items():
        shown = {"simpy": "SimPy"}.get(name, name)
        lines.append(f"beside {shown} {reference['ratio']:.2f}x its {reference['events_per_s'] or 0:,.0f} events/s")
    if document["verified"] is not None:
        lines.append(
            "verified     "
            + ("the sequential run has the same digest" if document["verified"] else "NO: digests differ")
        )
    return "\n".join(lines)
