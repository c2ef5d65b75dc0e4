"""The command ``tidewarp``: a table of commands, each in a file of its own that is imported when it runs.

A group (``bench``, ``store``, ``peer``, ``program``) is a folder, with one file per command again.
The contract that all of them keep (one JSON object, exit codes, error lines) is in :mod:`tidewarp.cli.frame`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

import click

from tidewarp import __version__
from tidewarp.cli import frame
from tidewarp.cli.lazy import Entry, LazyGroup

__all__ = ["COMMANDS", "main"]

COMMANDS: dict[str, Entry] = {
    "demo": Entry("tidewarp.cli.demo:command", "Real telemetry drives a factory twin: kill, recover, replay."),
    "run": Entry("tidewarp.cli.run:command", "Run a model, its inputs journaled."),
    "replay": Entry("tidewarp.cli.replay:command", "Replay a journal and compare the digests."),
    "verify": Entry("tidewarp.cli.verify:command", "Check a journal's chain without running a model."),
    "log": Entry("tidewarp.cli.log:command", "Show a journal's inputs, dead letters and turns of the run."),
    "redrive": Entry("tidewarp.cli.redrive:command", "Admit dead letters again, once the model has changed."),
    "redeliver": Entry("tidewarp.cli.redeliver:command", "Send a sink the outputs that it lacks."),
    "store": Entry("tidewarp.cli.store:command", "Keep artifacts and records, and compare stores."),
    "peer": Entry("tidewarp.cli.peer:command", "Exchange records with other sites."),
    "program": Entry("tidewarp.cli.program:command", "Run pure functions over artifacts, with receipts."),
    "bench": Entry("tidewarp.cli.bench:command", "Measure this machine, beside plain SimPy."),
    "warm": Entry("tidewarp.cli.warm:command", "Compile the kernels before a run needs them."),
    "doctor": Entry("tidewarp.cli.doctor:command", "Say what is installed and whether it works here."),
}
"""Every command by name, in the order of the help page."""


@click.group(
    cls=LazyGroup,
    entries=COMMANDS,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(__version__, message="tidewarp %(version)s")
@click.pass_context
def group(ctx: click.Context) -> None:
    """A digital-twin runtime whose live run is the replay of its own journal.

    Every command takes --json (one JSON object on stdout) and ends with 0 done, 1 a check failed, 2 bad input or
    3 something optional is missing.
    """
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


def main(argv: Sequence[str] | None = None, *, ready: Callable[[], None] | None = None) -> int:
    """Run the command that ``argv`` (default: the process's arguments) names; the exit code. Raises nothing.

    ``ready`` is called first, inside of what answers an interrupt.
    """
    return frame.run(group, list(sys.argv[1:] if argv is None else argv), ready)
