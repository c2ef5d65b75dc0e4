"""The command ``tidewarp``: a table of commands, each in a file of its own that is imported when it runs.

The contract that all of them keep (one JSON object, exit codes, error lines) is in :mod:`tidewarp.cli.frame`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import NamedTuple

import click

from tidewarp import __version__
from tidewarp.cli import frame

__all__ = ["COMMANDS", "main"]


class Entry(NamedTuple):
    """Where a command is ("module:attribute") and what the list of commands says of it."""

    target: str
    summary: str


COMMANDS: dict[str, Entry] = {
    "demo": Entry("tidewarp.cli.demo:command", "Real telemetry drives a factory twin: kill, recover, replay."),
    "run": Entry("tidewarp.cli.run:command", "Run a model, its inputs journaled."),
    "replay": Entry("tidewarp.cli.replay:command", "Replay a journal and compare the digests."),
    "verify": Entry("tidewarp.cli.verify:command", "Check a journal's chain without running a model."),
    "log": Entry("tidewarp.cli.log:command", "Show a journal's inputs, dead letters and turns of the run."),
    "redrive": Entry("tidewarp.cli.redrive:command", "Admit dead letters again, once the model has changed."),
    "redeliver": Entry("tidewarp.cli.redeliver:command", "Send a sink the outputs that it lacks."),
    "bench": Entry("tidewarp.cli.bench:command", "Measure this machine, beside plain SimPy."),
    "warm": Entry("tidewarp.cli.warm:command", "Compile the kernels before a run needs them."),
    "doctor": Entry("tidewarp.cli.doctor:command", "Say what is installed and whether it works here."),
}
"""Every command by name, in the order of the help page."""


class LazyGroup(click.Group):
    """A group that imports a command only when it runs or its own help is shown."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All names, in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, imported now; None if the table has no such name."""
        entry = COMMANDS.get(cmd_name)
        if entry is None:
            return None
        module, _, attribute = entry.target.partition(":")
        command: click.Command = getattr(import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands from the table, importing none."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.summary) for name, entry in COMMANDS.items()])


@click.group(cls=LazyGroup, invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
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
