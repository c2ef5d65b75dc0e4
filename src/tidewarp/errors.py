"""Every error that tidewarp raises on purpose, in one tree, split by who can mend it.

    TidewarpError
    ├── ModelError              the author of the model
    │   ├── RuleViolation       a value breaks the rule of its path (also a ValueError)
    │   ├── UnknownPath         no such path in the registry (also a KeyError)
    │   ├── Removed             a resource, container, store or value that was taken out of the model
    │   ├── InstantOverrun      a model schedules without end inside one instant
    │   ├── HandlerError        a handler raised, and its event is committed
    │   ├── UnknownDestination  a send to an LP that does not exist or is not linked (also an IndexError)
    │   ├── UnhandledMessage    the destination has no handler for a message's class
    │   ├── NegativeDelay       a send into the past, or beyond the last tick (also a ValueError)
    │   ├── LookaheadError      a send sooner than the declared lookahead
    │   ├── ZeroLookahead       a cycle of links without any lookahead, in conservative mode
    │   ├── GenerationOverflow  a loop of sends without delay
    │   ├── RangeError          a number that its declared kind cannot hold (also a ValueError)
    │   ├── NotCompilable       a handler outside of the compilable subset of Python
    │   ├── ProgramRefused      the source of a program breaks a rule (also a ValueError)
    │   └── ReverseMismatch     a reverse handler that does not restore the state
    ├── OperatorError           who runs it: options, files, disks, servers
    │   ├── MissingExtra        an optional package is not installed
    │   ├── StoreLocked         another process writes this journal
    │   ├── StoreFull           the disk, or the quota, is full; nothing was half written
    │   │   └── QuotaExceeded   the bound that was set for a store
    │   ├── OwnDomainBehind     a peer has records of this store that it lacks
    │   ├── OwnDomainForked     two copies of this store were written to
    │   ├── PolicyDenied        the policy in force does not give the right to do it
    │   ├── StoreFailed         an I/O error: the handle refuses everything from here on
    │   ├── Corrupt             stored bytes are not what was written
    │   ├── NotFound            no artifact of this name is known here
    │   ├── Withheld            an artifact is known, its bytes have not come
    │   ├── Erased              an artifact is known, its bytes were dropped for good
    │   ├── SnapshotIncomplete  records of a snapshot are not here
    │   ├── ModelChanged        the model is not the one that wrote the journal
    │   ├── LateInput           an input below GVT (also a ValueError)
    │   ├── PoolExhausted       the memory bound is below what the run needs
    │   ├── CheckpointRefused   bytes that are no checkpoint of this model
    │   ├── OutOfModel          what this machine cannot do for a program: there is no result
    │   ├── RankLost            an MPI rank died
    │   └── RankMismatch        MPI ranks that were started differently
    ├── PeerError               whoever sent the bytes
    │   ├── CodecError          bytes, or a value, without a canonical form (also a ValueError)
    │   └── PeerRefused         an answer that is not what was asked for, or not true
    └── InternalError           us: a broken invariant, never the user's fault

An error names the value, the rule and the next action. The constructor asks for the three, so that
none is forgotten; ``str(error)`` is "value: rule; action".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

__all__ = [
    "CheckpointRefused",
    "CodecError",
    "Corrupt",
    "Erased",
    "GenerationOverflow",
    "HandlerError",
    "InstantOverrun",
    "InternalError",
    "LateInput",
    "LookaheadError",
    "MissingExtra",
    "ModelChanged",
    "ModelError",
    "NegativeDelay",
    "NotCompilable",
    "NotFound",
    "OperatorError",
    "OutOfModel",
    "OwnDomainBehind",
    "OwnDomainForked",
    "PeerError",
    "PeerRefused",
    "PolicyDenied",
    "PoolExhausted",
    "ProgramRefused",
    "QuotaExceeded",
    "RangeError",
    "RankLost",
    "RankMismatch",
    "Removed",
    "ReverseMismatch",
    "RuleViolation",
    "SnapshotIncomplete",
    "StoreFailed",
    "StoreFull",
    "StoreLocked",
    "TidewarpError",
    "UnhandledMessage",
    "UnknownDestination",
    "UnknownPath",
    "Withheld",
    "ZeroLookahead",
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


class Removed(ModelError):
    """What was asked for has been taken out of the running model; who waited for it gets this."""


class InstantOverrun(ModelError):
    """More events at one time than any sensible model has: the clock would never move again."""


class HandlerError(ModelError):
    """A handler raised an exception and its event is committed; everything before it in key order is committed too."""


class UnknownDestination(ModelError, IndexError):
    """A send to an LP that does not exist, or that the sender is not linked to."""


class UnhandledMessage(ModelError):
    """A message whose class the destination has no handler for, or that the model does not know."""


class NegativeDelay(ModelError, ValueError):
    """A delay that is negative, no whole number of ticks, or leads beyond the last tick."""


class LookaheadError(ModelError):
    """A send to another LP with less delay than its link, or the model, declares."""


class ZeroLookahead(ModelError):
    """Links without lookahead form a cycle: no LP of it could ever be sure that nothing more comes."""

    exit_code = 2


class GenerationOverflow(ModelError):
    """A million sends without delay, each caused by the one before."""


class RangeError(ModelError, ValueError):
    """A number that the declared kind of its field cannot hold."""


class NotCompilable(ModelError):
    """A handler uses what the compiled tier does not know."""

    exit_code = 2


class ProgramRefused(ModelError, ValueError):
    """The source of a program breaks a rule; the value names its node."""

    exit_code = 2


class ReverseMismatch(ModelError):
    """A reverse handler does not bring back the state from before."""


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


class OwnDomainBehind(OperatorError):
    """A peer has shown more records of the own domain than are here: whatever is added now would fork it."""

    exit_code = 1


class OwnDomainForked(OperatorError):
    """A peer holds another continuation of the own domain, signed by its key; the proof of it is kept."""

    exit_code = 1


class PolicyDenied(OperatorError):
    """The policy in force here does not name the domain, or does not give it the role."""


class Corrupt(OperatorError):
    """Stored bytes are not what was written. ``seq`` is the first bad record, None where it is a page or a table."""

    exit_code = 1

    def __init__(self, value: str, rule: str, action: str, seq: int | None = None) -> None:
        super().__init__(value, rule, action)
        self.seq = seq


class QuotaExceeded(StoreFull):
    """More bytes than the quota of the store leaves room for; found by their declared size, before one was written."""


class NotFound(OperatorError):
    """No artifact of this name is known here, or the name is no artifact's."""


class Withheld(OperatorError):
    """An artifact that a record names; its bytes have not come with it."""


class Erased(OperatorError):
    """An artifact that a record names; another record says that its bytes were dropped for good."""


class SnapshotIncomplete(OperatorError):
    """A state cannot be made since records are not here. ``missing``: domain (32 bytes), first and last seq of each gap."""

    exit_code = 1

    def __init__(self, value: str, rule: str, action: str, missing: Sequence[tuple[bytes, int, int]]) -> None:
        super().__init__(value, rule, action)
        self.missing = tuple(missing)


class ModelChanged(OperatorError):
    """The model's sources, or the sources it connects, differ from those that wrote the journal."""


class LateInput(OperatorError, ValueError):
    """An input at a tick that GVT has passed: nothing there can change any more."""


class PoolExhausted(OperatorError):
    """The memory bound is too low for any order of execution."""

    exit_code = 1


class CheckpointRefused(OperatorError):
    """Bytes that are not a whole checkpoint of this model; nothing of them was loaded."""

    exit_code = 1


class OutOfModel(OperatorError):
    """A program needs what its model knows nothing of: memory, time, an operation, or one without a bug.

    It says nothing of what the program computes, so it leaves no result and no receipt.
    """

    exit_code = 1


class RankLost(OperatorError):
    """An MPI rank ended before the run did."""

    exit_code = 1


class RankMismatch(OperatorError):
    """MPI ranks disagree on the model, the options or the version."""


class PeerError(TidewarpError):
    """What another party sent breaks a rule."""


class CodecError(PeerError, ValueError):
    """A value without a canonical form, or bytes that are not the one form of a value."""


class PeerRefused(PeerError):
    """A peer's answer is not what was asked for, or what it says is not true. Nothing of it was taken."""


class InternalError(TidewarpError):
    """A broken invariant of tidewarp itself. Please report it with the message."""
