"""``tidewarp program``: one file per command, and ``operations``, what programs may use on this machine."""

from __future__ import annotations

import click

from tidewarp.cli.lazy import Entry, LazyGroup

__all__ = ["command"]

COMMANDS: dict[str, Entry] = {
    "build": Entry("tidewarp.cli.program.build:command", "Make a program of its source, and keep it."),
    "run": Entry("tidewarp.cli.program.run:command", "Run a program, and keep what came of it."),
    "request": Entry("tidewarp.cli.program.request:command", "Ask for a run that any site may execute."),
    "requests": Entry("tidewarp.cli.program.requests:command", "Say how far the runs are that were asked for."),
    "work": Entry("tidewarp.cli.program.work:command", "Execute the requests that are ready."),
    "verdict": Entry(
        "tidewarp.cli.program.verdict:command", "Execute a receipt's program, and say which result counts."
    ),
    "export": Entry("tidewarp.cli.program.export:command", "Write a receipt to a file that others can check."),
}


@click.group(cls=LazyGroup, entries=COMMANDS)
def command() -> None:
    """Run pure functions over artifacts, with receipts that anybody can check."""
