"""What the benchmarks of the kernel do with MPI ranks and checkpoints: options, starting ranks, and who of them speaks."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click

from tidewarp.cli.bench.kernel_options import duration
from tidewarp.cli.frame import Reply
from tidewarp.errors import OperatorError, TidewarpError
from tidewarp.kernel import Model

__all__ = ["launch_ranks", "rank_options", "saving_of", "speaking", "speaks_now", "surviving"]

Command = TypeVar("Command", bound=Callable[..., Any])
T = TypeVar("T")

_LAUNCHERS = ("launch", "restarts", "transport", "resume", "as_json")
"""What the launching process alone knows, or says itself."""

_MPI_SIZES = ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE")
"""What mpiexec tells its processes: MPICH's and Open MPI's name for how many they are."""


class _Place(click.Path):
    """A path that is not empty: an empty one, as of a variable that is not set, would be the current folder."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == "":
            raise OperatorError(
                f"{param.opts[0] if param else 'path'} ''", "it is a path", "give one, or . for this folder"
            )
        return super().convert(value, param, ctx)


_OPTIONS = (
    click.option("--transport", type=click.Choice(["threads", "mpi"]), default="threads", show_default=True, help="mpi: this process is a rank of an mpiexec."),
    click.option("--launch", type=click.IntRange(1, 4096), metavar="N", help="Start N ranks with mpiexec and watch them."),
    click.option("--restarts", type=click.IntRange(0, 1000), default=0, show_default=True, help="With --launch: go on from the newest checkpoint so often."),
    click.option("--checkpoint", type=_Place(path_type=Path, file_okay=False), metavar="DIR", help="Leave checkpoints here."),
    click.option("--checkpoint-every", type=duration, metavar="DUR", help="Virtual time between two; by default as often as loses least."),
    click.option("--resume", type=_Place(path_type=Path), metavar="DIR", help="Go on from the newest checkpoint in a folder, or from a file of it."),
)  # fmt: skip


def rank_options(command: Command) -> Command:
    """Add the options of ranks and checkpoints."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def saving_of(values: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of ``kernel.run`` that leave and take up checkpoints.

    Raises:
        OperatorError: options that contradict each other.
    """
    _check(values)
    return {name: values[name] for name in ("checkpoint", "checkpoint_every", "resume")}


def _check(values: Mapping[str, Any]) -> None:
    if values["checkpoint_every"] is not None and values["checkpoint"] is None:
        raise OperatorError("--checkpoint-every", "it needs a folder to write to", "add --checkpoint DIR")
    if values["repeat"] > 1 and (values["checkpoint"] is not None or values["resume"] is not None):
        raise OperatorError("--repeat with checkpoints", "one run is saved or resumed", "leave --repeat out")
    if values["restarts"] and values["launch"] is None:
        raise OperatorError("--restarts", "somebody has to watch the ranks", "add --launch N")
    if values["restarts"] and values["checkpoint"] is None:
        raise OperatorError("--restarts", "there would be nothing to go on from", "add --checkpoint DIR")


@contextlib.contextmanager
def speaking(context: click.Context, transport: str) -> Iterator[None]:
    """Rank 0 answers, and alone ends with an error: what happens to all ranks is said once.

    Raises:
        MissingExtra: MPI is not installed.
    """
    if transport != "mpi":
        if any(os.environ.get(name, "1") != "1" for name in _MPI_SIZES):
            click.echo("this process of mpiexec runs alone; add --transport mpi to make it a rank", err=True)
        yield
        return
    from tidewarp.kernel.shell.interrupts import RANK, deadly_signals
    from tidewarp.kernel.shell.mpi.world import join_ranks

    with deadly_signals(), contextlib.ExitStack() as stack:
        ranks = join_ranks()
        stack.enter_context(RANK)  # a rank that went away alone would leave the others waiting
        RANK.is_last = True
        if ranks.rank == 0:
            RANK.follow_launcher()
        try:
            yield
        except TidewarpError:
            if ranks.rank == 0:
                raise
            # mpiexec would end rank 0 before it has said it
        finally:
            reply = context.find_object(Reply)
            if ranks.rank and reply is not None:
                reply.given = True


def speaks_now(transport: str) -> bool:
    """Whether this process answers: a rank may have become the first of those that are left."""
    from tidewarp.kernel.shell.mpi.world import join_ranks

    return transport != "mpi" or join_ranks().rank == 0


def launch_ranks(context: click.Context, values: Mapping[str, Any], model: Model) -> dict[str, Any]:
    """Run this command on ``--launch`` ranks; what rank 0 answered, and ``recovered``, the restarts.

    Raises:
        RankLost: a rank died, and no restart is left.
        TidewarpError: what the ranks ended with.
    """
    from tidewarp.kernel.shell.checkpoint_files import whole_checkpoints
    from tidewarp.kernel.shell.launch import launch

    _check(values)
    folder: Path | None = values["checkpoint"]
    words = [*context.command_path.split()[1:], *_words(context, values), "--transport", "mpi", "--json"]

    def command(resume: Path | None) -> list[str]:
        source = resume or values["resume"]
        return [sys.executable, "-P", "-m", "tidewarp", *words, *([] if source is None else ["--resume", str(source)])]

    launched = launch(
        command,
        values["launch"],
        restarts=values["restarts"],
        newest=lambda: None if folder is None else next(whole_checkpoints(folder, model), None),
        say=_say,
        survive=folder is not None,
    )
    answer = launched.answer
    if "error" in answer:
        raise _error_of(answer)
    recovered = launched.restarts + answer.get("recovered", 0)
    return {"ranks": launched.ranks, **answer, "recovered": recovered}


def _say(line: str) -> None:
    click.echo(line, err=True)


def surviving(values: Mapping[str, Any], model: Model, attempt: Callable[[Path | None], T]) -> tuple[T, dict[str, int]]:
    """What ``attempt(checkpoint to resume from)`` gives; and ``recovered``, how often ranks went on without one that died.

    Only ranks that leave checkpoints can do that, and of these those of Open MPI: see :func:`survive`. Where they did,
    ``ranks`` is how many are left.
    """
    folder: Path | None = values["checkpoint"]
    if values["transport"] != "mpi" or folder is None:
        return attempt(values["resume"]), {"recovered": 0}
    from tidewarp.kernel.shell.checkpoint_files import whole_checkpoints
    from tidewarp.kernel.shell.mpi.survivors import survive
    from tidewarp.kernel.shell.mpi.world import join_ranks

    result, recovered = survive(attempt, values["resume"], lambda: next(whole_checkpoints(folder, model), None), _say)
    return result, {"recovered": recovered, **({"ranks": join_ranks().size} if recovered else {})}


def _error_of(answer: Mapping[str, Any]) -> TidewarpError:
    told = answer["error"]
    error = TidewarpError(told["value"], told["rule"], told["action"])
    error.exit_code = answer["exit"]  # type: ignore[misc]
    return error


def _words(context: click.Context, values: Mapping[str, Any]) -> list[str]:
    """The words that give a rank the options of this process."""
    words: list[str] = []
    for param in context.command.params:
        name = param.name or ""
        given = context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE
        if not given or name in _LAUNCHERS or values[name] is None:
            continue
        is_tick = param.type.name in ("duration", "window") and isinstance(values[name], int)
        is_flag = isinstance(param, click.Option) and param.is_flag
        for value in values[name] if param.multiple else [values[name]]:
            words += [param.opts[0]] if is_flag else [param.opts[0], f"{value}{'ns' * is_tick}"]
    return words
