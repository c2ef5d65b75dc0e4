"""Follows a peer: a pull whenever it has grown, until somebody ends it. The peer says so when it does, so nobody asks in vain."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue

from tidewarp.clocks.pacing import Clock
from tidewarp.errors import CodecError, PeerRefused
from tidewarp.federation.documents import ChangesDocument, decode_json
from tidewarp.federation.messages import GetChanges
from tidewarp.federation.peer import WAIT_MS_MAX
from tidewarp.federation.shell.client import PeerClient
from tidewarp.federation.shell.reports import PullReport

__all__ = ["BACK_OFF_S", "Follower"]

BACK_OFF_S = 1.0, 600.0
"""Wall seconds to wait behind the first failure in a row, and at most; in between they double."""

_PAUSE_S = 1.0  # between two pulls, if the first has brought nothing: whatever a peer says, it is not asked without end
_TOO_OLD = 410


class Follower:
    """Calls ``pull`` now and whenever the peer of ``client`` has grown. ``pull`` asks by the same client.

    ``clock`` is host time.
    """

    def __init__(self, client: PeerClient, pull: Callable[[], PullReport], clock: Clock) -> None:
        self._client = client
        self._pull = pull
        self._clock = clock
        self._inbox: SimpleQueue[bool] = SimpleQueue()
        self._stopped = threading.Event()
        self._back_off_s = 0.0
        self.pulls = 0
        """How many pulls there were."""

    def stop(self) -> None:
        """End :meth:`run`, also what it is asking at the moment; what was committed stays. For a signal handler."""
        self._stopped.set()
        self._inbox.put(True)
        self._client.interrupt()

    def run(self) -> PullReport:
        """Until it is stopped. What all pulls together have brought; of each domain its last outcome.

        Raises:
            PeerRefused: one of the two sides does not know the key of the other, or that is no peer.
            TidewarpError: of the own store, as a pull.
        """
        total: PullReport | None = None
        token = ""
        while not self._stopped.is_set():
            # The token is older than the pull: what comes in between is pulled once more, and nothing is missed.
            token = token or self._token()
            report = self._pull()
            self.pulls += 1
            total = report if total is None else total.followed_by(report)
            if self._stopped.is_set():
                break
            if report.incomplete or not token:
                self._rest(self._next_back_off())
                token = ""
                continue
            self._back_off_s = 0.0
            if not report.records:
                self._rest(_PAUSE_S)
            token = self._next_token(token)
        if total is None:
            total = PullReport.nothing()
        return total._replace(incomplete="") if self._stopped.is_set() else total

    def _token(self) -> str:
        """What the peer's state is called now; empty: it does not say."""
        found = self._asked(GetChanges())
        return "" if found is None else found.token

    def _next_token(self, token: str) -> str:
        """That of the state in which the peer has grown; empty: it is not known, so look at all."""
        while not self._stopped.is_set():
            found = self._asked(GetChanges(token, WAIT_MS_MAX))
            if found is None:
                return ""
            if found.domains:
                return found.token
        return ""

    def _asked(self, question: GetChanges) -> ChangesDocument | None:
        """The answer. Where there is none, after a rest."""
        try:
            answer = self._client.ask(question)
            if answer.status == 200:
                return decode_json(answer.whole, ChangesDocument)
        except (OSError, PeerRefused, CodecError):
            if self._client.refusal is not None:
                raise self._client.refusal from None
        else:
            if answer.status == _TOO_OLD:
                return None
        if not self._stopped.is_set() and question.token:
            self._rest(self._next_back_off())
        return None

    def _next_back_off(self) -> float:
        first_s, most_s = BACK_OFF_S
        self._back_off_s = min(max(first_s, 2 * self._back_off_s), most_s)
        return self._back_off_s

    def _rest(self, seconds: float) -> None:
        """Until so many wall seconds have passed, or it is stopped."""
        if not self._stopped.is_set():
            self._clock.wait(self._inbox, seconds)
