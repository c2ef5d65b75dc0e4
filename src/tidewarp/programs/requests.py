"""Requests: runs that any site may execute, whose inputs may be the outputs of other requests.

A request is an artifact, named by a REQUEST record. Whoever has the role ``execute`` may run it once it is *ready*:
program, params and inputs are visible and here, and where an input is an output of another request, that one is
accepted. No site leads. For each computation the sites have an order of their own, by

    SHA-256("TWRDV1" | computation key 32 | domain 32)      ascending

(rendezvous hashing: Thaler and Ravishankar, IEEE/ACM Transactions on Networking 6, 1998). The first goes at once, each
further one waits a grace time longer, so that a site that is down delays a run and stops nothing. Where two run the same,
nothing is lost but time: equal computations have one key and one result.

A request is cancelled by a tombstone on it. One whose computation is divergent waits for a verdict, and so do those that
hang on it.
"""

from __future__ import annotations

import hashlib
from typing import Final, NamedTuple

from tidewarp.codec import PUBLISHED
from tidewarp.codec.artifacts import TAG_REQUEST
from tidewarp.codec.bodies import REQUEST, RequestBody
from tidewarp.codec.references import Reference
from tidewarp.codec.requests import RunRequest
from tidewarp.programs.news import NewsReader
from tidewarp.programs.operations import OperationRegistry
from tidewarp.programs.request_graph import RequestGraph, RequestState, Stage
from tidewarp.store.admission import Role
from tidewarp.store.contract import Entry, Store
from tidewarp.store.fold import View

__all__ = ["GRACE_S", "ReadyRequest", "RequestBoard", "RequestState", "Stage", "rendezvous", "submit"]

GRACE_S: Final = 10.0
"""Seconds that each site leaves to the one before it."""


class ReadyRequest(NamedTuple):
    """A request that can be run here, as the arguments of :func:`tidewarp.programs.runs.run`.

    ``key`` (32 bytes) is that of the computation; ``turn``, from 0, is this site's place in the order for it.
    """

    request: Reference
    key: bytes
    program: Reference
    inputs: tuple[Reference, ...]
    params: Reference | None
    turn: int


def submit(store: Store, request: RunRequest) -> Reference:
    """Ask for a run; durable on return. What is asked for already, by whomever, is not asked for again.

    Raises:
        CodecError: a number in it is out of range. What a write to ``store`` raises.
    """
    data, ref = request.to_bytes(), request.reference()
    with store.transaction():
        if not store.view(scope="all").is_visible(ref):
            store.put(data, tag=TAG_REQUEST)
            store.journal.append([Entry(REQUEST, RequestBody(ref).to_bytes(), PUBLISHED)])
    return ref


def rendezvous(key: bytes, domain: bytes) -> bytes:
    """By what (32 bytes) the sites are ordered for the computation ``key``; both arguments have 32 bytes."""
    return hashlib.sha256(b"TWRDV1" + key + domain).digest()


class RequestBoard:
    """The requests that a store knows: which of them can be run here now.

    Reads what is new in the store at each call, and nothing twice; what has not changed is not looked at again.

    Args:
        store: where requests, programs and results are.
        registry: the operations that there are here; what needs others is left to others.
        grace_s: see :data:`GRACE_S`.
    """

    def __init__(self, store: Store, registry: OperationRegistry, *, grace_s: float = GRACE_S) -> None:
        self._store = store
        self._grace_s = grace_s
        self._reader = NewsReader(store)
        self._graph = RequestGraph(store, registry)
        self._asked: set[Reference] = set()
        self._unseen: set[Reference] = set()  # of these, what the graph does not know

    def ready(self, waited_s: float = 0.0) -> list[ReadyRequest]:
        """What this site may run now, in the order of the requests' names; empty if it has not the role ``execute``.

        ``waited_s``: seconds since something changed here last, so that it is clear who should have come first.
        """
        view = self._store.view(scope="all")
        domains = self._executors(view)
        if self._store.domain not in domains:
            return []
        self._follow(view)
        found = []
        for state, request, inputs, *_ in self._graph.ready():
            ref, key = state.request, state.key
            if request is None or key is None or ref not in self._asked or not view.is_visible(ref):
                continue
            turn = _turn(key, self._store.domain, domains)
            if turn * self._grace_s <= waited_s:
                found.append(ReadyRequest(ref, key, request.program, inputs, request.params, turn))
        return found

    def states(self) -> list[RequestState]:
        """Where the requests stand that are visible, in the order of their names."""
        view = self._store.view(scope="all")
        self._follow(view)
        return [self._graph[ref].state for ref in sorted(filter(view.is_visible, self._asked))]

    def state(self, ref: Reference) -> RequestState:
        """Where the request ``ref`` stands, which may be one that is still to come."""
        self._follow(self._store.view(scope="all"), ref)
        return self._graph[ref].state

    def _follow(self, view: View, *others: Reference) -> None:
        """Read what is new, and see where each visible request stands, and others that somebody asks about."""
        reader, self._reader = self._reader, NewsReader(self._store)  # all is new again, should this come to no end
        news = reader.read(view)
        if news.anew:
            self._graph.forget()
            self._asked.clear()
            self._unseen.clear()
        self._asked |= news.requests
        self._unseen |= news.requests
        self._graph.follow(view, news.subjects)
        for ref in (*filter(view.is_visible, sorted(self._unseen)), *others):
            self._graph.see(view, ref)
            self._unseen.discard(ref)
        self._reader = reader

    def _executors(self, view: View) -> set[bytes]:
        """The domains that may run anything; the own one too, before its first record."""
        domains = {head.domain for head in view.heads()} | {self._store.domain}
        standings = ((domain, view.admission.standing(domain)) for domain in domains)
        return {domain for domain, standing in standings if standing is not None and Role.EXECUTE in standing.roles}


def _turn(key: bytes, me: bytes, domains: set[bytes]) -> int:
    """How many of ``domains`` go before ``me``."""
    own = rendezvous(key, me)
    return sum(rendezvous(key, domain) < own for domain in domains)
