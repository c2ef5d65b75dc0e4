"""``tidewarp program``: one file per command, and ``operations``, what programs may use on this machine."""

from __future__ import annotations

import click

from tidewarp.cli.lazy import Entry, LazyGroup

__all__ = ["command"]

COMMANDS: dict[str, Entry] = {
    "build": Entry("tidewarp.cli.program.build:command", "Make a program of its source, and keep it."),
    "run": Entry("tidewarp.cli.program.run:command", "Run a program, and keep what came of it."),
    "export": Entry("tidewarp.cli.program.export:command", "Write a receipt to a file that others can check."),
}


@click.group(cls=LazyGroup, entries=COMMANDS)
def command() -> None:
    """Run pure functions over artifacts, with receipts that anybody can check."""
