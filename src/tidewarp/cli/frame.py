"""What every command promises, in one place.

* ``--json`` prints exactly one JSON object on stdout. Whatever else prints (a model, a library) goes to stderr.
* The exit code is 0 done, 1 a check failed, 2 bad input, 3 something optional is missing, 130 interrupted,
  141 the reader of stdout went away (what a shell shows for a program that SIGPIPE ends).
* An error is one line on stderr, ``error: value: rule; action``, and with ``--json`` also the object
  ``{"error": {"value", "rule", "action"}, "exit": n}``. A traceback needs ``TIDEWARP_LOG=debug``.

A command is a click command that takes ``json_option``, calls :func:`emit` (or, for what is no text, :func:`emit_bytes`)
once and returns its exit code::

    @click.command()
    @click.argument("file", type=click.Path(path_type=Path))
    @json_option
    def command(file: Path, as_json: bool) -> int:
        \"\"\"First sentence of the help page.\"\"\"
        document = examine(file)
        emit(document, as_json, render)
        return 0 if document["ok"] else 1

Errors are raised, not printed.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TextIO

import click

from tidewarp.cli.problem import escape, explain
from tidewarp.cli.values import plain
from tidewarp.errors import InternalError, OperatorError

__all__ = ["EXIT_INTERRUPTED", "EXIT_PIPE_CLOSED", "emit", "emit_bytes", "json_option", "run"]

EXIT_INTERRUPTED = 130
EXIT_PIPE_CLOSED = 141
WIDTH_OF_A_PIPE = 120  # columns of a table that no terminal shows

json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")


class Reply:
    """The one answer of a command, on the stdout that the process was started with."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.given = False
        self.is_unread = (
            False  # its reader went away: known from here on, since the stream may have dropped what it refused
        )

    def write(self, text: str) -> None:
        """Write and flush. Raises BrokenPipeError, and OperatorError where stdout takes no more."""
        self.given = True
        with self._writing():
            self.stream.write(text)
            self.stream.flush()

    def write_bytes(self, pieces: Iterable[bytes]) -> None:
        """Write and flush bytes as they are, piece by piece. Raises as :meth:`write`, and what ``pieces`` raises."""
        self.given = True
        with self._writing():
            self.stream.flush()
        binary = self.stream.buffer
        for piece in pieces:  # what the making of a piece raises is no fault of stdout
            with self._writing():
                binary.write(piece)
        with self._writing():
            binary.flush()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except BrokenPipeError:
            self.is_unread = True
            raise
        except OSError as error:
            reason = error.strerror or str(error)
            raise OperatorError("standard output", reason, "send it where there is room") from error


def emit(document: Mapping[str, Any], as_json: bool, render: Callable[[Mapping[str, Any]], object]) -> None:
    """Give the command's answer: ``document`` as JSON, or what ``render(document)`` makes of it for people.

    ``render`` returns text (control characters in it are escaped, line ends kept) or anything that rich can print,
    whose strings from outside it has passed through ``problem.escape``. In JSON a float that is not finite is null,
    bytes are hexadecimal, paths are text. Raises InternalError at the second call and for a value without JSON form.
    """
    reply = _the_reply()
    reply.write(_json(document) if as_json else _text(render(document), reply.stream))


def emit_bytes(pieces: Iterable[bytes]) -> None:
    """Give the command's answer as bytes: those of what was asked for, and nothing around them.

    They are written as they come, so an error in the midst leaves the first of them written. Raises InternalError
    at the second call, OperatorError where stdout takes no more.
    """
    _the_reply().write_bytes(pieces)


def _the_reply() -> Reply:
    """That of the running command, not yet given."""
    context = click.get_current_context(silent=True)
    reply = (context and context.find_object(Reply)) or Reply(sys.stdout)
    if reply.given:
        raise InternalError("a second answer of one command", "a command calls emit once", "please report it")
    return reply


def _json(document: Mapping[str, Any]) -> str:
    return json.dumps(plain(document), allow_nan=False) + "\n"


def _text(answer: object, stream: TextIO) -> str:
    if isinstance(answer, str):
        return "\n".join(map(escape, answer.split("\n"))).rstrip("\n") + "\n"
    from rich.console import Console  # most answers need no rich

    is_measured = stream.isatty() or "COLUMNS" in os.environ
    width = None if is_measured else WIDTH_OF_A_PIPE
    console = Console(file=stream, width=width, highlight=False, markup=False, emoji=False)
    with console.capture() as capture:  # rich would end the process at a closed pipe
        console.print(answer)
    return capture.get()


def run(group: click.Command, argv: Sequence[str], ready: Callable[[], None] | None = None) -> int:
    """Call ``ready``, run ``group`` on ``argv`` and keep the contract above; the exit code. Raises nothing."""
    reply = Reply(_standard_output())
    as_json = _wants_json(argv)
    aside = contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext()
    try:
        if ready is not None:
            ready()
        with aside:
            return _invoke(group, argv, reply, as_json)
    except click.exceptions.Exit as request:
        return request.exit_code
    except (KeyboardInterrupt, click.Abort):
        return _interrupted(reply, as_json)
    except BaseException as error:
        if isinstance(error, BrokenPipeError) and (reply.is_unread or _is_closed(reply.stream)):
            return EXIT_PIPE_CLOSED
        return _failed(error, reply, as_json)
    finally:
        _is_closed(reply.stream)


def _invoke(group: click.Command, argv: Sequence[str], reply: Reply, as_json: bool) -> int:
    # Not `group.main()`: that one ends the process at a closed pipe and answers ^C with an empty line.
    with group.make_context("tidewarp", list(argv), obj=reply) as context:
        code = group.invoke(context)
    if as_json and not reply.given:
        raise InternalError("no answer", "a command calls emit once", "please report it")
    return code if isinstance(code, int) else 0


def _failed(error: BaseException, reply: Reply, as_json: bool) -> int:
    problem = explain(error)
    if problem.is_internal and os.environ.get("TIDEWARP_LOG", "").lower() == "debug":
        _say("".join(traceback.format_exception(error)).rstrip("\n"))
    _say(problem.line())
    _answer(reply, as_json, problem.document())
    return problem.exit_code


def _interrupted(reply: Reply, as_json: bool) -> int:
    _say("interrupted")
    _answer(reply, as_json, {"interrupted": True, "exit": EXIT_INTERRUPTED})
    return EXIT_INTERRUPTED


def _answer(reply: Reply, as_json: bool, document: Mapping[str, Any]) -> None:
    """The answer of a command that gave none; a stdout that takes nothing changes no exit code."""
    if as_json and not reply.given:
        with contextlib.suppress(OSError, OperatorError):
            reply.write(_json(document))


def _say(line: str) -> None:
    if sys.stderr is not None:
        with contextlib.suppress(OSError, ValueError):
            print(line, file=sys.stderr, flush=True)


def _wants_json(argv: Sequence[str]) -> bool:
    """Asked of the raw words, since the answer is also needed where they cannot be parsed."""
    words = list(argv)
    return "--json" in (words[: words.index("--")] if "--" in words else words)


def _standard_output() -> TextIO:
    if sys.stdout is None:  # closed by whoever started the process
        return io.TextIOWrapper(io.BytesIO())
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a Latin-1 terminal must not end a command
    return sys.stdout


def _is_closed(stream: TextIO) -> bool:
    """Whether the stream refuses what is still in its buffer; if so, that goes nowhere from here on.

    Without this the interpreter would try again at its end, complain and exit with 120.
    """
    try:
        stream.flush()
    except (OSError, ValueError):
        with contextlib.suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)
        return True
    return False
