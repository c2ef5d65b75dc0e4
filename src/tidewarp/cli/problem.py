"""An exception as one line for people and one object for programs."""

from __future__ import annotations

import errno
import os
from typing import Any, NamedTuple

import click

from tidewarp.errors import InternalError, TidewarpError

__all__ = ["Problem", "escape", "explain"]

VALUE_CHARS_MAX = 200
CLAUSE_CHARS_MAX = 600  # a rule or an action: long enough for a command that mends it
EXIT_BAD_INPUT = 2

_ACTIONS = {
    errno.ENOENT: "check its name",
    errno.EEXIST: "name another, or remove it",
    errno.EACCES: "give this user the right, or name another path",
    errno.EPERM: "give this user the right, or name another path",
    errno.EISDIR: "name a file",
    errno.ENOTDIR: "name a folder",
    errno.ENXIO: "name a regular file",
    errno.ENOSPC: "free some space, or name another disk",
    errno.EROFS: "name a path on a disk that can be written",
}


class Problem(NamedTuple):
    """What is wrong, which rule it breaks, what to do next, and how the process ends."""

    value: str
    rule: str
    action: str
    exit_code: int
    is_internal: bool = False

    def line(self) -> str:
        """``error: value: rule; action``, without a line end or any other control character."""
        return escape(f"error: {self.value}: {self.rule}; {self.action}")

    def document(self) -> dict[str, Any]:
        """The same for programs, with ``exit``, the exit code."""
        return {"error": {"value": self.value, "rule": self.rule, "action": self.action}, "exit": self.exit_code}


def escape(text: str) -> str:
    """``text`` with every character that is not printable (controls, line ends, direction marks) as a backslash and its number."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def explain(error: BaseException) -> Problem:
    """The problem that an exception stands for. What nobody raised on purpose is internal: our fault."""
    value, rule, action, exit_code, is_internal = _raw(error)
    return Problem(
        _shorten(value, VALUE_CHARS_MAX),
        _shorten(rule, CLAUSE_CHARS_MAX),
        _shorten(action, CLAUSE_CHARS_MAX),
        exit_code,
        is_internal,
    )


def _raw(error: BaseException) -> Problem:
    if isinstance(error, InternalError):
        return Problem(f"internal: {error.value}", error.rule, error.action, error.exit_code, True)
    if isinstance(error, TidewarpError):
        return Problem(error.value, error.rule, error.action, error.exit_code)
    if isinstance(error, click.ClickException):
        return _usage(error)
    if isinstance(error, OSError) and isinstance(error.filename, str | bytes):
        reason = error.strerror or type(error).__name__
        action = _ACTIONS.get(error.errno or 0, "mend it, or name another path")
        return Problem(os.fsdecode(error.filename), reason, action, EXIT_BAD_INPUT)
    if isinstance(error, SystemExit):
        return Problem(f"SystemExit({error.code})", "nothing inside a command ends it", "raise an exception instead", 1)
    return Problem(
        f"internal: {type(error).__name__}",
        str(error) or "no message",
        "please report this line and what TIDEWARP_LOG=debug adds to it",
        1,
        True,
    )


def _usage(error: click.ClickException) -> Problem:
    context = getattr(error, "ctx", None)
    path = context.command_path if context else "tidewarp"
    return Problem(path, error.format_message().rstrip("."), f"see {path} --help", EXIT_BAD_INPUT)


def _shorten(text: str, limit: int) -> str:
    return text if len(text) <= limit else f"{text[:limit]}... ({len(text)} characters)"
