"""Every error that tidewarp raises on purpose, in one tree, split by who can mend it.

    TidewarpError
    ├── ModelError              the author of the model
    │   ├── RuleViolation       a value breaks the rule of its path (also a ValueError)
    │   ├── UnknownPath         no such path in the registry (also a KeyError)
    │   └── InstantOverrun      a model schedules without end inside one instant
    ├── OperatorError           who runs it: options, files, disks, servers
    │   ├── MissingExtra        an optional package is not installed
    │   ├── StoreLocked         another process writes this journal
    │   ├── StoreFull           the disk, or the quota, is full; nothing was half written
    │   ├── StoreFailed         an I/O error: the handle refuses everything from here on
    │   ├── Corrupt             stored bytes are not what was written
    │   └── ModelChanged        the model is not the one that wrote the journal
    ├── PeerError               whoever sent the bytes
    │   └── CodecError          bytes, or a value, without a canonical form (also a ValueError)
    └── InternalError           us: a broken invariant, never the user's fault

An error names the value, the rule and the next action. The constructor asks for the three, so that
none is forgotten; ``str(error)`` is "value: rule; action".
"""

from __future__ import annotations

from typing import ClassVar

__all__ = [
    "CodecError",
    "Corrupt",
    "InstantOverrun",
    "InternalError",
    "MissingExtra",
    "ModelChanged",
    "ModelError",
    "OperatorError",
    "PeerError",
    "RuleViolation",
    "StoreFailed",
    "StoreFull",
    "StoreLocked",
    "TidewarpError",
    "UnknownPath",
]


class TidewarpError(Exception):
    """Base of all errors of this package: ``value``, ``rule`` and ``action`` are what ``str()`` joins.

    ``exit_code`` is what a command ends with when the error reaches it: 1 a check or a run failed,
    2 bad input, 3 something optional is missing.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, value: str, rule: str, action: str) -> None:
        super().__init__(value, rule, action)
        self.value = value
        self.rule = rule
        self.action = action

    def __str__(self) -> str:
        return f"{self.value}: {self.rule}; {self.action}"


class ModelError(TidewarpError):
    """The model's code, or a value that the model computed, breaks a rule."""


class RuleViolation(ModelError, ValueError):
    """A value that its path does not accept."""


class UnknownPath(ModelError, KeyError):
    """A path that no variable, resource or parameter is registered at."""

    __str__ = TidewarpError.__str__


class InstantOverrun(ModelError):
    """More events at one time than any sensible model has: the clock would never move again."""


class OperatorError(TidewarpError):
    """An option, a file, a disk or a server is not as it has to be."""

    exit_code = 2


class MissingExtra(OperatorError):
    """An optional package or server is missing; the action is the command that installs it."""

    exit_code = 3


class StoreLocked(OperatorError):
    """Another live process holds the writer lock; the value names its pid."""


class StoreFull(OperatorError):
    """No space: the transaction was rolled back, nothing of it was acknowledged, the store stays usable."""

    exit_code = 1


class StoreFailed(OperatorError):
    """An I/O or fsync error: what the disk holds is unknown, so the handle refuses all further work."""

    exit_code = 1


class Corrupt(OperatorError):
    """Stored bytes are not what was written. ``seq`` is the first bad record, None where it is a page or a table."""

    exit_code = 1

    def __init__(self, value: str, rule: str, action: str, seq: int | None = None) -> None:
        super().__init__(value, rule, action)
        self.seq = seq


class ModelChanged(OperatorError):
    """The model's sources, or the sources it connects, differ from those that wrote the journal."""


class PeerError(TidewarpError):
    """What another party sent breaks a rule."""


class CodecError(PeerError, ValueError):
    """A value without a canonical form, or bytes that are not the one form of a value."""


class InternalError(TidewarpError):
    """A broken invariant of tidewarp itself. Please report it with the message."""
