"""Working: a site executes the requests that are ready in its store, those first whose turn it has.

What one site makes another finds when it pulls, so all of them only have to do this again and again. How long a site has
waited is counted from when records came here last: of this it needs a clock, and of nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from tidewarp.clocks.pacing import Clock
from tidewarp.codec.receipts import Executor
from tidewarp.errors import Corrupt, OutOfModel, PolicyDenied
from tidewarp.programs.execution import LIMITS, Limits
from tidewarp.programs.operations import OperationRegistry
from tidewarp.programs.requests import GRACE_S, ReadyRequest, RequestBoard
from tidewarp.programs.runs import Run, run
from tidewarp.store.admission import Role
from tidewarp.store.contract import Store

__all__ = ["Work", "Worker"]


class Work(NamedTuple):
    """A request that was taken up: the run, or why this machine cannot make it; of the two one is None."""

    ready: ReadyRequest
    run: Run | None
    refusal: OutOfModel | Corrupt | None


class Worker:
    """Executes what is ready, as ``executor``, and publishes the receipts.

    It remembers from one round to the next since when nothing has come, and what it has taken up: each computation once,
    so that one which this machine cannot execute is left to others. The store may be closed between two rounds.

    Args:
        executor: who the receipts say has run it.
        seed: of the executor's Ed25519 key (32 bytes), to sign them.
        registry: the operations that there are here.
        clock: of the waiting, and of the receipts' times.
        grace_s: what each site leaves to the one before it; 0: it runs whatever is ready.
        limits: what this machine gives to a run. Where these say that it is cancelled, a round ends.
    """

    def __init__(
        self,
        executor: Executor,
        seed: bytes,
        registry: OperationRegistry,
        clock: Clock,
        *,
        grace_s: float = GRACE_S,
        limits: Limits = LIMITS,
    ) -> None:
        self._executor = executor
        self._seed = seed
        self._registry = registry
        self._clock = clock
        self._grace_s = grace_s
        self._limits = limits
        self._sizes: dict[bytes, int] = {}  # of the domains, when records came here last
        self._since_s = clock.now()
        self._taken: set[bytes] = set()  # computations

    def round(self, store: Store) -> Iterator[Work]:
        """Execute what is ready in ``store`` and this site's turn, and what becomes so by it, until nothing is.

        Each is kept when it is given.

        Raises:
            PolicyDenied: the store's own domain has not the role ``execute``; its receipts would count for nothing.
            QuotaExceeded, StoreFull, StoreFailed: what was given before is kept.
        """
        standing = store.admission.standing(store.domain)
        if standing is None or Role.EXECUTE not in standing.roles:
            raise PolicyDenied(
                f"domain {store.domain.hex()}",
                "the policy in force here does not give it the role execute",
                "let another site work, or give it: tidewarp peer trust DIR NAME --key HEX --role execute",
            )
        board = RequestBoard(store, self._registry, grace_s=self._grace_s)
        while ready := [one for one in board.ready(self._waited_s(store)) if one.key not in self._taken]:
            for one in ready:
                if self._limits.cancelled():
                    return
                try:
                    work = Work(one, self._run(store, one), None)
                except (OutOfModel, Corrupt) as error:
                    if self._limits.cancelled():
                        return
                    work = Work(one, None, error)
                self._taken.add(one.key)
                yield work

    def _waited_s(self, store: Store) -> float:
        """Seconds since something came."""
        sizes = {domain.id: domain.size for domain in store.domains()}
        if sizes != self._sizes:
            self._sizes, self._since_s = sizes, self._clock.now()
        return self._clock.now() - self._since_s

    def _run(self, store: Store, one: ReadyRequest) -> Run:
        return run(
            store,
            one.program,
            one.inputs,
            params=one.params,
            registry=self._registry,
            executor=self._executor,
            seed=self._seed,
            now=self._clock.unix_ns,
            limits=self._limits,
        )
