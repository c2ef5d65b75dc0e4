"""The exchange over HTTP: threads, sockets and temporary files around what is pure beside it.

server    answers what a PeerHandler says
client    asks what a PullMachine wants to know
tls       the keys of both
streams   deadlines and bounds of both
site      a store with its policy and its peers
"""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import Any, BinaryIO, NamedTuple, cast

from tidewarp.clocks.pacing import Clock
from tidewarp.clocks.wall import WallClock
from tidewarp.errors import OwnDomainForked
from tidewarp.federation.conflicts import chosen_branches
from tidewarp.federation.contract import ExchangeStore, Holdings
from tidewarp.federation.exchange import Exchange, in_force, ledger_of
from tidewarp.federation.messages import DomainReport
from tidewarp.federation.peer import PeerHandler
from tidewarp.federation.policy import to_be_pulled
from tidewarp.federation.shell.client import PeerClient
from tidewarp.federation.shell.server import PeerServer
from tidewarp.federation.shell.tls import Tls
from tidewarp.store.admission import Role

__all__ = ["PeerClient", "PeerServer", "PullReport", "plan", "pull", "serve"]

_IN_MEMORY_BYTES = 1 << 20


class PullReport(NamedTuple):
    """What a pull has done: records committed, what was refused or forked, bytes of answers, wall seconds.

    ``domains`` has a line for each that was looked at, ``ignored`` counts the others. ``incomplete`` is empty, or says
    what ended the pull early; all commits are kept. ``answered``: has the peer said anything? ``absent`` counts artifacts
    that records here name and whose bytes no peer has given yet.
    """

    records: int
    conflicts: int
    bytes: int
    domains: tuple[DomainReport, ...]
    ignored: int
    incomplete: str
    answered: bool
    seconds: float
    absent: int = 0


def serve(
    holdings: Holdings,
    host: str = "127.0.0.1",
    port: int = 0,
    *,
    tls: Tls | None = None,
    roles: Mapping[bytes, frozenset[Role]] = MappingProxyType({}),
) -> PeerServer:
    """Answer peers from now on, until the server is closed; without ``tls`` those of this machine alone.

    ``roles``: of who holds a key (32 bytes); an auditor also gets what is not published.

    Raises:
        OperatorError: the address cannot be bound.
    """
    return PeerServer(PeerHandler(holdings), host, port, tls=tls, roles=roles)


def pull(
    store: ExchangeStore,
    url: str,
    *,
    domains: Collection[bytes] | None = None,
    until: int | None = None,
    records_max: int | None = None,
    quotas: Mapping[bytes, int] | None = None,
    tls: Tls | None = None,
    clock: Clock | None = None,
) -> PullReport:
    """Take from the peer at ``url`` what it has more: of all domains or those named, up to a record, at most so many.

    Where a policy is in force, only what it names is looked at. ``quotas``: bytes of artifacts that a domain (32 bytes)
    may bring, at most. Where one leaves no room, or that of the store, the pull ends with the outcome ``full``.

    Raises:
        OperatorError: no address of a peer.
        PolicyDenied: a domain is named that the policy does not take.
        PeerRefused: one of the two sides does not know the key of the other, or no peer answers at that address.
        OwnDomainForked: the peer holds another continuation of the own domain, signed by its key; the proof is kept.
        StoreFull, StoreFailed: of the own store; what was committed before stays.
    """
    return _exchanged(
        store, url, tls, clock or WallClock(), domains, quotas=quotas, until=until, records_max=records_max
    )


def plan(store: ExchangeStore, url: str, *, tls: Tls | None = None, clock: Clock | None = None) -> PullReport:
    """What :func:`pull` would begin with; nothing is taken. ``after`` of each domain is the size that the peer shows."""
    return _exchanged(store, url, tls, clock or WallClock(), None, dry=True)


def _exchanged(
    store: ExchangeStore, url: str, tls: Tls | None, clock: Clock, domains: Collection[bytes] | None, **options: Any
) -> PullReport:
    begun_s = clock.now()
    ledger = ledger_of(store)
    policy = in_force(store, ledger, note=True)
    options["domains"] = to_be_pulled(policy, store.domain, domains)
    options["chosen"] = chosen_branches(store, ledger, policy)
    with PeerClient(url, tls=tls, clock=clock) as client:
        options["send_ahead"] = client.send_ahead
        exchange = Exchange(store, client.url, client.ask, _spool, lambda: clock.unix_ns() // 1_000_000, **options)
        finish = exchange.run()
        if client.refusal is not None:
            raise client.refusal
    for forked in exchange.forked:
        if forked.domain == store.domain:
            raise OwnDomainForked(
                f"domain {forked.domain.hex()}",
                f"{client.url} holds another record {forked.common + 1} of it, signed by its key: two copies were written to",
                "begin a successor; tidewarp store log shows the proof",
            )
    return PullReport(
        finish.records,
        exchange.conflicts,
        finish.bytes,
        finish.domains,
        finish.ignored,
        finish.incomplete,
        exchange.answered or client.has_answered,
        clock.now() - begun_s,
        finish.absent,
    )


def _spool() -> BinaryIO:
    return cast("BinaryIO", tempfile.SpooledTemporaryFile(_IN_MEMORY_BYTES))
