"""A store that takes what is pushed, without a wire: what the tests of pushes are made of."""

from __future__ import annotations

import io

from tidewarp.federation.conflicts import settle
from tidewarp.federation.exchange import ledger_of
from tidewarp.federation.messages import Asked, GetMissing, HttpRequest, HttpResponse, PushArtifact, PushRecords
from tidewarp.federation.peer import PeerHandler
from tidewarp.federation.policy import Policy
from tidewarp.federation.push import Push
from tidewarp.federation.receive import NotTaken, Receiver
from tidewarp.store.admission import Role
from tidewarp.store.fold.conflicts import FORK

FEDERATE = frozenset({Role.FEDERATE})


class Taking:
    """A store as :class:`~tidewarp.federation.peer.ServingSite`."""

    def __init__(self, store, policy: Policy | None = None, quotas=None) -> None:
        self.store = store
        self.policy = policy
        self.quotas = quotas or {}

    def check(self) -> None:
        pass

    def forks(self):
        return [one for one in ledger_of(self.store).conflicts() if one.kind == FORK]

    def bridges(self):
        return ledger_of(self.store).bridges()

    def lacking(self):
        return [*ledger_of(self.store).lacking(10_000)]

    def gauges(self):
        return {}

    def bytes_awaited(self, reference):
        if ledger_of(self.store).awaits(reference) is None:
            raise NotTaken(409, reference.hex(), "not awaited", "push the record")
        return 1 << 30

    def take_records(self, key, data, *, is_packed):
        taken = self._receiver().take_records(data, is_packed=is_packed)
        if hasattr(self.store, "admit"):
            settle(self.store, ledger_of(self.store), self.policy)
        return taken

    def take_artifact(self, key, reference, source):
        self._receiver().take_artifact(reference, source)

    def _receiver(self) -> Receiver:
        return Receiver(self.store, "push:test", self.policy, self.quotas, io.BytesIO, lambda: 0)


def handler_of(store, **options) -> PeerHandler:
    return PeerHandler(store, Taking(store, **options))


def asker(store, roles=FEDERATE, **options):
    """What answers in the place of a peer with this store."""
    handler = handler_of(store, **options)

    def ask(question: Asked) -> HttpResponse:
        if isinstance(question, PushArtifact):
            source = io.BytesIO(b"".join(question.pieces()))
            request = HttpRequest("PUT", question.target, roles=roles, source=source)
        else:
            method = "POST" if isinstance(question, PushRecords | GetMissing) else "GET"
            headers = getattr(question, "headers", {})
            request = HttpRequest(method, question.target, headers, getattr(question, "body", b""), roles)
        size_max = handler.body_max(request)
        return handler.handle(request) if isinstance(size_max, int) else size_max

    return ask


def pushed(source, into, *, limit: int = 5_000, roles=FEDERATE, domains=None, **options) -> Push:
    """Push once, without a wire."""
    told = Push(source, asker(into, roles, **options), domains, limit, ledger_of(source).bridges())
    told.run()
    return told
