"""The exchange over HTTP: threads, sockets and temporary files around what is pure beside it.

server     answers what a PeerHandler says: callers (whom it answers), metrics (what it counts)
client     asks what a PullMachine, or a Push, wants to know
following  a pull whenever a peer has grown
reports    what an exchange has done
tls        the keys of both
streams    deadlines and bounds of both; spool: temporary files
site       a store with its policy and its peers; serving: while it is served
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from tidewarp.clocks.pacing import Clock
from tidewarp.clocks.wall import WallClock
from tidewarp.codec.artifacts import TAG_EVIDENCE, Artifact
from tidewarp.codec.records import record_hash
from tidewarp.errors import OwnDomainForked
from tidewarp.federation.conflicts import chosen_branches
from tidewarp.federation.contract import ExchangeStore, Holdings
from tidewarp.federation.exchange import Exchange, in_force, ledger_of
from tidewarp.federation.messages import Bridge
from tidewarp.federation.peer import PeerHandler
from tidewarp.federation.policy import to_be_pulled
from tidewarp.federation.push import Push
from tidewarp.federation.shell.callers import FixedCallers
from tidewarp.federation.shell.client import PeerClient
from tidewarp.federation.shell.metrics import Metrics
from tidewarp.federation.shell.reports import PullReport, PushReport
from tidewarp.federation.shell.server import PeerServer
from tidewarp.federation.shell.serving import ServedSite
from tidewarp.federation.shell.site import Site
from tidewarp.federation.shell.spool import new_spool
from tidewarp.federation.shell.tls import Tls
from tidewarp.store.admission import Role

__all__ = [
    "PeerClient",
    "PeerServer",
    "PullReport",
    "PushReport",
    "plan",
    "pull",
    "pull_by",
    "push",
    "serve",
    "serve_site",
]


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
    return PeerServer(PeerHandler(holdings), host, port, callers=FixedCallers(tls, roles))


def serve_site(
    site: Site,
    place: Path,
    host: str = "127.0.0.1",
    port: int = 0,
    *,
    tls_file: Path | None = None,
    clock: Clock | None = None,
) -> PeerServer:
    """As :func:`serve`, with TLS if there is ``tls_file``; what the policy and the peers of ``site`` say at each request counts.

    ``place`` is that of its store. Who has the role ``federate`` may push, unless the store is open read-only.

    Raises:
        OperatorError: as :func:`serve`, and :meth:`Site.tls`.
    """
    time = clock or WallClock()
    metrics = Metrics()
    served = ServedSite(site, place, None if tls_file is None else site.tls(tls_file), tls_file, metrics, time)
    handler = PeerHandler(site.store, served, metrics.counts)
    return PeerServer(handler, host, port, callers=served, metrics=metrics, clock=time)


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
    time = clock or WallClock()
    with PeerClient(url, tls=tls, clock=time) as client:
        return pull_by(client, store, time, domains=domains, quotas=quotas, until=until, records_max=records_max)


def push(
    store: Holdings,
    url: str,
    *,
    domains: Collection[bytes] | None = None,
    bridges: Mapping[bytes, Bridge] | None = None,
    tls: Tls | None = None,
    clock: Clock | None = None,
) -> PushReport:
    """Give the peer at ``url`` what it lacks of all that is published here, or of these ``domains`` (32 bytes each).

    ``bridges``: by domain, why a head covers what is held, where that ends before the head does: the ledger has them.
    It takes what it would pull. Nothing here changes, but that the own head may be signed.

    Raises:
        OperatorError: no address of a peer.
        PeerRefused: one of the two sides does not know the key of the other, or no peer answers at that address.
    """
    time = clock or WallClock()
    begun_s = time.now()
    with PeerClient(url, tls=tls, clock=time) as client:
        told = Push(store, client.ask, domains, bridges=bridges or {})
        told.run()
        if client.refusal is not None:
            raise client.refusal
        return PushReport(
            told.records,
            told.conflicts,
            told.bytes,
            tuple(told.domains_told),
            told.incomplete,
            client.has_answered,
            time.now() - begun_s,
            told.lacking,
        )


def plan(store: ExchangeStore, url: str, *, tls: Tls | None = None, clock: Clock | None = None) -> PullReport:
    """What :func:`pull` would begin with; nothing is taken. ``after`` of each domain is the size that the peer shows."""
    time = clock or WallClock()
    with PeerClient(url, tls=tls, clock=time) as client:
        return pull_by(client, store, time, dry=True)


def pull_by(
    client: PeerClient, store: ExchangeStore, clock: Clock, *, domains: Collection[bytes] | None = None, **options: Any
) -> PullReport:
    """As :func:`pull`, over a connection that stays; ``options`` as there, and ``dry``."""
    begun_s = clock.now()
    ledger = ledger_of(store)
    policy = in_force(store, ledger, note=True)
    options["domains"] = to_be_pulled(policy, store.domain, domains)
    options["chosen"] = chosen_branches(store, ledger, policy)
    options["send_ahead"] = client.send_ahead
    exchange = Exchange(store, client.url, client.ask, new_spool, lambda: clock.unix_ns() // 1_000_000, **options)
    finish = exchange.run()
    if client.refusal is not None:
        raise client.refusal
    for forked in exchange.forked:
        if forked.domain == store.domain:
            one, other = (record_hash(header.to_bytes()).hex() for header in (forked.proof.one, forked.proof.other))
            proof = Artifact(forked.proof.to_bytes(), TAG_EVIDENCE).reference().hex()
            raise OwnDomainForked(
                f"domain {forked.domain.hex()}",
                f"{client.url} holds another record {forked.common + 1} of it, signed by its key: two copies were written to:"
                f" fork {forked.proof.conflict.hex()}, of {one} and {other}, proof {proof}",
                "see it: tidewarp store conflicts DIR; go on under a new one: tidewarp store init NEW --successor DIR",
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
        tuple(exchange.forks),
    )
