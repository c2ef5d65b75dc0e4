"""A site that is served: what its policy and its peers say now, not when the server began; and what is pushed to it."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from tidewarp.clocks.pacing import Clock
from tidewarp.codec.artifacts import artifact_head
from tidewarp.codec.references import Reference
from tidewarp.errors import Erased, NotFound, OperatorError, TidewarpError, Withheld
from tidewarp.federation.documents import TakenDocument
from tidewarp.federation.exposition import Counts
from tidewarp.federation.ledger import Conflict, Ledger
from tidewarp.federation.messages import Bridge
from tidewarp.federation.pull import ARTIFACT_BYTES_MAX, LACKING_MAX
from tidewarp.federation.receive import NotTaken, Receiver
from tidewarp.federation.shell.metrics import Metrics
from tidewarp.federation.shell.site import Site
from tidewarp.federation.shell.spool import new_spool
from tidewarp.federation.shell.tls import Tls
from tidewarp.federation.verify import UNSTATED_BYTES_MAX
from tidewarp.store.admission import Role
from tidewarp.store.fold.conflicts import FORK

__all__ = ["ServedSite"]

_HEAD_BYTES_MAX = len(artifact_head(0, 0))


class ServedSite:
    """``site`` as :class:`~tidewarp.federation.peer.ServingSite` and :class:`~tidewarp.federation.shell.callers.Callers`.

    Args:
        site: with its store open.
        place: of the store.
        tls: with which key it speaks at first; None: without.
        tls_file: where that lies.
        metrics: what is counted of pushes.
        clock: host time.

    Threads share it. Of pushes one at a time is taken; the others are told to come again.
    """

    def __init__(
        self,
        site: Site,
        place: Path,
        tls: Tls | None,
        tls_file: Path | None,
        metrics: Metrics,
        clock: Clock,
    ) -> None:
        self._site = site
        self._tls = tls
        self._tls_file = tls_file
        self._metrics = metrics
        self._clock = clock
        self._lock = threading.Lock()  # of what is read anew
        self._taking = threading.Lock()
        self._peers = site.peers()
        self._peers_seen = site.peers_stamp()
        real = Path(os.path.realpath(place))
        self._database = real / "store.db" if real.is_dir() else real
        self._file = _file_at(self._database)

    # --- as ServingSite

    def check(self) -> None:
        """As the protocol says."""
        if _file_at(self._database) != self._file:
            rule = "the store that is served was moved, removed or replaced"
            raise OperatorError("this site", rule, "its operator: end this server, and serve it where it is")

    def forks(self) -> Sequence[Conflict]:
        """As the protocol says."""
        ledger = self._site.noted()
        return [] if ledger is None else [one for one in ledger.conflicts() if one.kind == FORK]

    def bridges(self) -> Mapping[bytes, Bridge]:
        """As the protocol says."""
        ledger = self._site.noted()
        return {} if ledger is None else ledger.bridges()

    def lacking(self) -> Sequence[Reference]:
        """As the protocol says."""
        ledger = self._site.noted()
        return [] if ledger is None else [*ledger.lacking(LACKING_MAX)]

    def gauges(self) -> Counts:
        """As the protocol says."""
        ledger = self._site.noted()
        found = [] if ledger is None else ledger.conflicts()
        return {
            ("store_conflicts_open", ""): sum(one.state == "open" for one in found),
            ("store_quarantine_bytes", ""): 0 if ledger is None else ledger.quarantine_bytes(),
            **self._metrics.levels(),
        }

    def bytes_awaited(self, reference: Reference) -> int:
        """As the protocol says."""
        ledger = self._site.noted()
        origin = None if ledger is None else ledger.awaits(reference)
        if ledger is None or origin is None:
            rule = "no record here waits for its bytes"
            raise NotTaken(409, reference.hex(), rule, "push the record that names it, or nothing: it may be here")
        whose, room = self._room(ledger, origin)
        try:
            size = self._site.store.info(reference).size
        except Withheld:
            size = min(UNSTATED_BYTES_MAX, room)
        except (NotFound, Erased) as error:
            raise NotTaken(409, error.value, error.rule, "push the record that names it") from None
        if size > ARTIFACT_BYTES_MAX:
            raise NotTaken(413, reference.hex(), f"an artifact has at most {ARTIFACT_BYTES_MAX} bytes", "keep it")
        if size > room:
            rule = f"it has {size} bytes, and the quota of {whose} leaves {room}"
            raise NotTaken(507, reference.hex(), rule, "ask the operator of this site for room")
        return size + _HEAD_BYTES_MAX

    def _room(self, ledger: Ledger, origin: bytes) -> tuple[str, int]:
        """Payload bytes that may come of a domain, and whose quota leaves the fewest; no more than an artifact may have."""
        quota, left = self._peers.quotas.get(origin), self._site.store.room()
        rooms = [("this site", ARTIFACT_BYTES_MAX if left is None else left)]
        if quota is not None:
            rooms.append(("its domain", quota - ledger.bytes_of(origin)))
        whose, room = min(rooms, key=lambda one: one[1])
        return whose, min(max(room, 0), ARTIFACT_BYTES_MAX)

    def take_records(self, key: bytes, data: bytes, *, is_packed: bool) -> TakenDocument:
        """As the protocol says."""
        with self._receiving(key) as receiver:
            taken = receiver.take_records(data, is_packed=is_packed)
            self._site.settle()
        self._metrics.add("peer_records_taken_total", taken.after - taken.before)
        return taken

    def take_artifact(self, key: bytes, reference: Reference, source: BinaryIO) -> None:
        """As the protocol says."""
        with self._receiving(key) as receiver:
            receiver.take_artifact(reference, source)

    @contextmanager
    def _receiving(self, key: bytes) -> Iterator[Receiver]:
        if not self._taking.acquire(blocking=False):
            raise NotTaken(503, "push", "another is being taken", "come again in a second")
        try:
            self._look()
            name = next((one.name for one in self._peers.peers if one.key == key), key.hex()[:16])
            store, policy = self._site.store, self._site.policy
            now_ms: Callable[[], int] = lambda: self._clock.unix_ns() // 1_000_000  # noqa: E731  # it has a type
            yield Receiver(store, f"push:{name}", policy, self._peers.quotas, new_spool, now_ms)
        finally:
            self._taking.release()

    # --- as Callers

    def tls(self) -> Tls | None:
        """As the protocol says."""
        self._look()
        return self._tls

    def keys(self) -> frozenset[bytes]:
        """As the protocol says."""
        self._look()
        return self._peers.keys()

    def roles(self) -> Mapping[bytes, frozenset[Role]]:
        """As the protocol says."""
        self._look()
        return self._site.roles_of(self._peers)

    def _look(self) -> None:
        """Follow what was adopted, and written to peers.toml, since. What cannot be read changes nothing, and is counted."""
        with self._lock:
            try:
                self._site.follow_policy()
                stamp = self._site.peers_stamp()
                if stamp == self._peers_seen:
                    return
                self._peers_seen = stamp
                peers = self._site.peers()
                if self._tls is not None and peers.keys() and peers.keys() != self._tls.pinned:
                    self._tls = self._site.tls(self._tls_file)
            except TidewarpError:
                self._metrics.add("peer_settings_unread_total")
                return
            self._peers = peers


def _file_at(path: Path) -> tuple[int, int] | None:
    """Which file has this name; None: there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
