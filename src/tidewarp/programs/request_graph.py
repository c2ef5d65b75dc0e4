"""Where requests stand, and the graph of them, which follows a view as it grows.

A request is looked at again when a record speaks of its computation, or of an output or receipt that is claimed for it;
when one that it hangs on stands otherwise; and each time while it is ready, or waits for bytes, since these come and go
without a record. So a chain of requests, each of which makes the next one ready, costs a few looks for each and not one
at all others.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from enum import StrEnum
from heapq import heapify, heappop, heappush
from typing import NamedTuple

from tidewarp.codec.artifacts import TAG_REQUEST
from tidewarp.codec.computations import Manifest
from tidewarp.codec.programs import Program
from tidewarp.codec.references import Reference
from tidewarp.codec.requests import RequestInput, RequestOutput, RunRequest
from tidewarp.errors import CodecError, OutOfModel, ProgramRefused
from tidewarp.programs.execution import computation_of
from tidewarp.programs.news import Subject
from tidewarp.programs.operations import OperationRegistry
from tidewarp.programs.runs import read_program
from tidewarp.store.contract import Store
from tidewarp.store.fold import Agreement, View
from tidewarp.store.links import PAYLOAD_BYTES_MAX

__all__ = ["Known", "RequestGraph", "RequestState", "Stage"]

_SETTLED = (Agreement.ACCEPTED, Agreement.RESOLVED)


class Stage(StrEnum):
    """How far a request has come; the text is its name in reports."""

    WAITING = "waiting"
    """Something that it needs is not visible, not here, or not settled; or its output is hidden."""
    READY = "ready"
    """Everything is here, and no result is settled."""
    DONE = "done"
    """Its outputs are settled."""
    FAILED = "failed"
    """It is settled that the program fails on these inputs."""
    DIVERGENT = "divergent"
    """Receipts contradict each other; it waits for a verdict."""
    BLOCKED = "blocked"
    """An input of it is an output that will not come: of a run that failed, or that has not so many."""
    ELSEWHERE = "elsewhere"
    """Its program has an operation that is not registered here."""
    INVALID = "invalid"
    """It is no request, or what it names as its program is none."""


_FRUITLESS = frozenset({Stage.BLOCKED, Stage.INVALID})


class RequestState(NamedTuple):
    """Where a request stands. ``waits_for``, ascending: artifacts that are not here, and requests that are not settled.

    ``key`` (32 bytes) is there once all inputs have names, ``outputs`` once they are settled: none where it failed.
    """

    request: Reference
    stage: Stage
    key: bytes | None = None
    outputs: tuple[Reference, ...] | None = None
    waits_for: tuple[Reference, ...] = ()


class Known(NamedTuple):
    """A request, where it stands, and its inputs once all of them have names.

    ``depth``: more than of all that it hangs on, as they were when it was looked at. ``is_open``: what it needs may come
    or go without a record.
    """

    state: RequestState
    request: RunRequest | None = None
    inputs: tuple[Reference, ...] = ()
    depth: int = 0
    is_open: bool = False

    @property
    def is_fruitless(self) -> bool:
        """Whether no waiting brings an output of it."""
        return self.state.stage in _FRUITLESS

    def bears(self, other: Known) -> bool:
        """Whether it is what ``other`` is for those that hang on it."""
        return (self.state.outputs, self.is_fruitless) == (other.state.outputs, other.is_fruitless)


class RequestGraph:
    """Requests by what they hang on, and where they stand in the last view of ``store`` that was followed.

    ``registry``: the operations that there are here.
    """

    def __init__(self, store: Store, registry: OperationRegistry) -> None:
        self._store = store
        self._registry = registry
        self._known: dict[Reference, Known] = {}
        self._open: set[Reference] = set()
        self._made_of: dict[Subject, set[Reference]] = {}  # by subject, the requests whose state hangs on it
        self._requests: dict[Reference, RunRequest | None] = {}  # None: it is none
        self._programs: dict[Reference, Program | None] = {}
        self._keys: dict[tuple[Reference, Manifest], bytes | None] = {}

    def __getitem__(self, ref: Reference) -> Known:
        """Where a request stands that has been seen."""
        return self._known[ref]

    def forget(self) -> None:
        """Nothing that was known need be so."""
        self._known.clear()
        self._open.clear()
        self._made_of.clear()

    def follow(self, view: View, subjects: Iterable[Subject]) -> None:
        """Bring what is known up to ``view``, whose new records speak of ``subjects``: each behind what it hangs on."""
        queued = self._open.union(*(self._made_of.get(one, ()) for one in subjects))
        queue = [(self._known[ref].depth, ref) for ref in queued]
        heapify(queue)
        while queue:
            _, ref = heappop(queue)
            queued.remove(ref)
            before = self._known[ref]
            self._look(view, ref)
            if self._known[ref].bears(before):
                continue
            for one in self._made_of.get(ref, set()) - queued:
                queued.add(one)
                heappush(queue, (self._known[one].depth, one))

    def see(self, view: View, ref: Reference) -> None:
        """Get to know ``ref``, which may be still to come, and all that it hangs on; ``view`` is the one that was followed."""
        if ref not in self._known:
            self._look(view, ref)

    def ready(self) -> Iterator[Known]:
        """Those that are ready, in the order of their names."""
        return (self._known[ref] for ref in sorted(self._open) if self._known[ref].state.stage is Stage.READY)

    def _look(self, view: View, ref: Reference) -> None:
        """See where ``ref`` stands now, behind all that it hangs on and that is not known. A name is a hash, so there is no cycle."""
        waiting = [ref]
        while waiting:
            name = waiting[-1]
            if name != ref and name in self._known:
                waiting.pop()
                continue
            request = self._request(name)
            sources = set() if request is None else _sources(request)
            before = sources.difference(self._known)
            if before:
                waiting += sorted(before)
                continue
            waiting.pop()
            known = self._unread(name) if request is None else self._judged(view, name, request)
            self._known[name] = known._replace(depth=1 + max((self._known[one].depth for one in sources), default=0))
            (self._open.add if known.is_open else self._open.discard)(name)
            for one in sources:
                self._note(one, name)

    def _note(self, subject: Subject, ref: Reference) -> None:
        self._made_of.setdefault(subject, set()).add(ref)

    def _unread(self, ref: Reference) -> Known:
        """What there is to say of a request that cannot be read."""
        if ref in self._requests:
            return Known(RequestState(ref, Stage.INVALID))
        return Known(RequestState(ref, Stage.WAITING, waits_for=(ref,)), is_open=True)

    def _judged(self, view: View, ref: Reference, request: RunRequest) -> Known:
        """Where a request stands, by what it hangs on, which is known."""
        program = self._program(request.program)
        if program is None and request.program in self._programs:
            return Known(RequestState(ref, Stage.INVALID), request)
        if any(map(self._never_comes, request.inputs)):
            return Known(RequestState(ref, Stage.BLOCKED), request, is_open=program is None)
        lacking = {one for one in _sources(request) if self._known[one].state.outputs is None}
        if lacking or program is None:
            lacking |= set() if program is not None else {request.program}
            waiting = RequestState(ref, Stage.WAITING, waits_for=tuple(sorted(lacking)))
            return Known(waiting, request, is_open=program is None)
        inputs = tuple(map(self._named, request.inputs))
        key = self._key(request.program, program, Manifest(inputs, request.params))
        if key is None:
            return Known(RequestState(ref, Stage.ELSEWHERE), request, inputs)
        claimed = self._claimed(view, ref, program, key)
        if claimed is not None:
            return Known(claimed, request, inputs)
        needed = sorted({request.program, *inputs, *([] if request.params is None else [request.params])})
        is_here = self._store.has(needed)
        absent = [one for one, here in zip(needed, is_here, strict=True) if not here or not view.is_visible(one)]
        state = RequestState(ref, Stage.WAITING if absent else Stage.READY, key, waits_for=tuple(absent))
        return Known(state, request, inputs, is_open=True)

    def _claimed(self, view: View, ref: Reference, program: Program, key: bytes) -> RequestState | None:
        """Where a request stands by what receipts say of its computation; None: they do not keep it from being run."""
        self._note(key, ref)
        for claim in view.receipts(key):
            for one in (claim.receipt, *claim.outputs):
                self._note(one, ref)
        found = view.key_state(key)
        if found is None:
            return None
        if found.agreement in _SETTLED:
            outputs = found.lists[0]
            return RequestState(ref, Stage.FAILED if program.roots and not outputs else Stage.DONE, key, outputs)
        if found.agreement is Agreement.DIVERGENT:
            return RequestState(ref, Stage.DIVERGENT, key)
        hidden = {one for outputs in found.lists for one in outputs if view.is_hidden(one)}
        if not hidden:
            return None
        return RequestState(ref, Stage.WAITING, key, waits_for=tuple(sorted(hidden)))  # nobody makes it again

    def _key(self, ref: Reference, program: Program, manifest: Manifest) -> bytes | None:
        """None where the program has an operation that others may have."""
        if (ref, manifest) not in self._keys:
            try:
                self._keys[ref, manifest] = computation_of(program, manifest, self._registry).key
            except OutOfModel:
                self._keys[ref, manifest] = None
        return self._keys[ref, manifest]

    def _request(self, ref: Reference) -> RunRequest | None:
        """None where its bytes are not here yet, or are no request."""
        if ref not in self._requests:
            if not all(self._store.has([ref])):
                return None
            self._requests[ref] = self._read_request(ref)
        return self._requests[ref]

    def _read_request(self, ref: Reference) -> RunRequest | None:
        info = self._store.info(ref)
        if info.tag != TAG_REQUEST or info.size > PAYLOAD_BYTES_MAX:
            return None
        try:
            return RunRequest.from_bytes(self._store.get(ref))
        except CodecError:  # who asked wrongly gets nothing; the record stays for him to see
            return None

    def _program(self, ref: Reference) -> Program | None:
        if ref not in self._programs:
            if not all(self._store.has([ref])):
                return None
            try:
                self._programs[ref] = read_program(self._store, ref)
            except ProgramRefused:
                self._programs[ref] = None
        return self._programs[ref]

    def _named(self, source: RequestInput) -> Reference:
        """The artifact that ``source`` is, or has come to."""
        if isinstance(source, Reference):
            return source
        outputs = self._known[source.request].state.outputs
        assert outputs is not None  # or the request would wait for it
        return outputs[source.output]

    def _never_comes(self, source: RequestInput) -> bool:
        """Is ``source`` an output that no waiting brings?"""
        if isinstance(source, Reference):
            return False
        known = self._known[source.request]
        outputs = known.state.outputs
        return known.is_fruitless if outputs is None else source.output >= len(outputs)


def _sources(request: RunRequest) -> set[Reference]:
    """The requests whose outputs it names."""
    return {one.request for one in request.inputs if isinstance(one, RequestOutput)}
