"""Write docs/reference/commands.md from the commands themselves: ``python scripts/commands_page.py``."""

from __future__ import annotations

from collections.abc import Iterator
from inspect import cleandoc
from pathlib import Path

import click

from tidewarp.cli import group

PAGE = Path(__file__).parents[1] / "docs" / "reference" / "commands.md"
_HEAD = """\
<!-- Made by scripts/commands_page.py: change the commands, not this page. -->
# Commands

"""
_CONTRACT = """\

An answer goes to standard output, everything else to standard error. With `--json` the answer is one JSON object. How
commands end is said in [Errors and exit codes](errors.md).
"""


def page() -> str:
    """The whole page, as Markdown."""
    context = click.Context(group, info_name="tidewarp")
    return _HEAD + cleandoc(group.help or "") + "\n" + _CONTRACT + "".join(_below(group, context))


def _below(parent: click.Group, context: click.Context) -> Iterator[str]:
    for name in parent.list_commands(context):
        command = parent.get_command(context, name)
        if command is None:
            raise LookupError(name)
        inner = click.Context(command, info_name=name, parent=context)
        yield _section(command, inner)
        if isinstance(command, click.Group):
            yield from _below(command, inner)


def _section(command: click.Command, context: click.Context) -> str:
    usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
    rows = "".join(f"| {option} | {text} |\n" for option, text in _options(command, context))
    table = f"\n| option | meaning |\n|---|---|\n{rows}" if rows else ""
    return f"\n## {context.command_path}\n\n`{usage}`\n\n{cleandoc(command.help or '')}\n{table}"


def _options(command: click.Command, context: click.Context) -> Iterator[tuple[str, str]]:
    for parameter in command.params:
        record = parameter.get_help_record(context) if isinstance(parameter, click.Option) else None
        if record is not None:
            option, text = (part.replace("|", ", ") for part in record)  # a bar would end the cell
            yield f"`{option}`", text.replace("  [", " [")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
