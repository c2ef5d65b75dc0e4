"""The journal's documents about the run itself, and how they are written. Reading them back: ``facts``.

``tw.open/1``      :class:`Opened`; the first record of every run
``tw.resume/1``    :class:`Resumed`: a later life, or a later `run`, went on from here
``tw.stop/1``      :class:`Stopped`: all instants below ``tick`` are done, none at or above it
``tw.mark/1``      :class:`Mark`, in DIGEST records; what a replay is compared with
``tw.released/1``  :class:`Released`, in RELEASED records
``tw.part/1``      {reference, data}: a part of the document of the next checkpoint, in a CHECKPOINT record
``tw.checkpoint/1``  :class:`Checkpoint`, in CHECKPOINT records; a later life may begin here

Documents about inputs: ``connect.documents``.
"""

from __future__ import annotations

import platform
from importlib.metadata import version
from typing import Any

import msgspec

from tidewarp.codec import CHECKPOINT, DIGEST, INPUT, RELEASED, pack_document, timed_body
from tidewarp.store import Entry

__all__ = [
    "CUT",
    "FORMS",
    "MARK",
    "OPEN",
    "PART",
    "RELEASED_IDS",
    "RESUME",
    "STOP",
    "Checkpoint",
    "Mark",
    "ModelRecord",
    "Opened",
    "Released",
    "Resumed",
    "Stopped",
    "entry",
    "platform_of",
]

OPEN, RESUME, STOP, MARK, RELEASED_IDS = "tw.open", "tw.resume", "tw.stop", "tw.mark", "tw.released"
CUT, PART = "tw.checkpoint", "tw.part"
_KINDS = {MARK: DIGEST, RELEASED_IDS: RELEASED, CUT: CHECKPOINT, PART: CHECKPOINT}


class _Form(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The fields of a document. ``msgspec.convert`` refuses what has others, or of other types."""

    def document(self) -> dict[str, Any]:
        """As the journal holds it."""
        document: dict[str, Any] = msgspec.to_builtins(self, builtin_types=(bytes,))
        return document


class ModelRecord(_Form, frozen=True):
    """The model that began a run: ``path`` relative to the journal's folder, None if it came from no file."""

    path: str | None
    function: str
    digest: str  # hex; "" without files
    files: dict[str, str]  # path relative to the model's folder -> SHA-256 hex


class Opened(_Form, frozen=True):
    """A run began. ``sources``: name -> what it was connected with, its ``rank`` among it."""

    domain: str  # 64 hex digits
    epoch_ns: int  # Unix ns of tick 0
    seed: int
    model: ModelRecord
    sources: dict[str, dict[str, Any]]
    versions: dict[str, str]
    platform: str
    unix_ns: int  # wall time at which the run began


class Resumed(_Form, frozen=True):
    """A later life, or a later `run`, went on from ``tick``; ``model`` is the model digest, ``sources`` as in Opened.

    ``catch_up`` tells how the wall time in between is treated, "fast" or "pause"; ``unix_ns`` is the wall time of ``tick``.
    """

    tick: int
    model: str
    sources: dict[str, dict[str, Any]]
    versions: dict[str, str]
    platform: str
    unix_ns: int
    catch_up: str


class Stopped(_Form, frozen=True):
    """A run ended at ``tick``: "end", "interrupted", "lag" (later than its limit) or "model" (it raised; ``detail`` says what)."""

    tick: int
    reason: str
    detail: str


class Mark(_Form, frozen=True, omit_defaults=True):
    """The heads of the two chains (32 bytes each) at a tick. ``digest``: the run digest, hex, or None where the run went on.

    ``ahead``: of the inputs at the tick itself, which the program has set there between two runs, the first so many are in.
    """

    tick: int
    events: int
    inputs: bytes
    outputs: bytes
    digest: str | None
    ahead: int = 0


class Checkpoint(_Form, frozen=True):
    """A cut: the run is what goes on from a document. ``tick``: the first one behind the instant of the cut.

    Inputs below it were applied. Both chains begin a block there. ``reference``: SHA-256 of the document, hex; it stands in
    the ``tw.part`` records before this one. ``last_id``: of the last output before the cut; "" if there was none.
    """

    tick: int
    events: int
    inputs: bytes  # heads of the chains, as of a mark
    outputs: bytes
    applied: int  # inputs
    refused: int
    published: int  # outputs
    last_id: str
    reference: str


class Released(_Form, frozen=True):
    """The last output id that each sink held at ``tick``; "" before its first.

    ``gvt``: nothing below it changes any more. Where late inputs are repaired, or the wall decides how far the clock comes,
    it is written before outputs below it leave.
    """

    tick: int
    sinks: dict[str, str]
    gvt: int


FORMS: dict[str, type[Opened | Resumed | Stopped | Mark | Released | Checkpoint]] = {
    OPEN: Opened,
    RESUME: Resumed,
    STOP: Stopped,
    MARK: Mark,
    RELEASED_IDS: Released,
    CUT: Checkpoint,
}
"""The class of each schema of this module."""


def entry(schema: str, tick: int, value: Any) -> Entry:
    """The journal entry of one document (plain data) of this module, at ``tick``."""
    return Entry(_KINDS.get(schema, INPUT), timed_body(tick, pack_document(schema, 1, value)), last_tick=tick)


def platform_of() -> dict[str, Any]:
    """Versions and platform, for people who compare two runs. Not part of any digest."""
    return {
        "versions": {name: version(name) for name in ("tidewarp", "simpy", "msgspec")},
        "platform": f"{platform.python_implementation()} {platform.python_version()}, {platform.machine()}",
    }
