"""One push to one peer: what it lacks of what is here, in parcels, and then the bytes of large artifacts.

It decides by the peer's own heads, and asks for nothing else: where journals do not fit, a pull from that peer finds out why.
The peer takes what it is sent as if it had pulled it (:mod:`~tidewarp.federation.receive`), so this side promises nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

from tidewarp.codec.artifacts import artifact_head
from tidewarp.codec.frames import Reader
from tidewarp.codec.heads import SignedHead
from tidewarp.codec.merkle import joined_consistency
from tidewarp.codec.references import Reference, read_references
from tidewarp.errors import CodecError, Corrupt, Erased, NotFound, PeerError, PeerRefused, Withheld
from tidewarp.federation.answers import artifact_pieces, batch_items
from tidewarp.federation.bridged import bridge_beyond
from tidewarp.federation.contract import DomainState, Holdings
from tidewarp.federation.documents import (
    HeadDocument,
    TakenDocument,
    decode_heads,
    decode_json,
    head_document,
)
from tidewarp.federation.messages import (
    NEXT_PAGE,
    Asked,
    Bridge,
    DomainReport,
    GetHeads,
    GetLacking,
    HttpResponse,
    PushArtifact,
    PushRecords,
)
from tidewarp.federation.parcel import Parcel
from tidewarp.federation.refused import told

__all__ = ["RECORDS_PER_PARCEL", "Push"]

RECORDS_PER_PARCEL = 5_000
_OUTCOMES = {507: "full", 429: "incomplete"}
_DIFFERS = "it holds another history of it; the proof comes with: tidewarp peer pull DIR URL"
_ACTION = "check the address, and the version there"

T = TypeVar("T")


@dataclass
class Push:
    """A push of what ``holdings`` has to who answers ``ask``; of these ``domains`` (32 bytes each), or of all.

    ``bridges`` say by domain why a head covers what is held, where that ends before the head does.
    ``ask`` raises OSError where there is no answer and PeerRefused where it breaks the protocol. After :meth:`run`,
    ``domains_told`` says what became of each domain, ``incomplete`` what ended it early, if anything did; ``bytes`` counts
    those of parcels and artifacts, ``conflicts`` what the peer refused or found forked, ``lacking`` the artifacts whose
    bytes it still lacks, as far as it says so.
    """

    holdings: Holdings
    ask: Callable[[Asked], HttpResponse]
    domains: Collection[bytes] | None = None
    limit: int = RECORDS_PER_PARCEL
    bridges: Mapping[bytes, Bridge] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.domains_told: list[DomainReport] = []
        self.incomplete = ""
        self.bytes = 0
        self.conflicts = 0
        self.lacking = 0

    @property
    def records(self) -> int:
        """Records that the peer has committed."""
        return sum(one.after - one.before for one in self.domains_told)

    def run(self) -> None:
        """Push until nothing is left that the peer takes. What it has committed stays, whatever comes then."""
        try:
            shown = self._heads()
            for state in sorted(self.holdings.domains(), key=lambda one: one.id):
                if self.domains is None or state.id in self.domains:
                    self._domain(state, shown.get(state.id.hex()))
            self._artifacts()
        except (OSError, PeerError) as error:
            self.incomplete = str(error)
        except _Ended as ended:
            self.incomplete = str(ended)

    def _heads(self) -> dict[str, HeadDocument]:
        """What the peer shows of the domains that are here."""
        held = {one.id.hex() for one in self.holdings.domains()}
        found: dict[str, HeadDocument] = {}
        after = b""
        while True:
            answer = self.ask(GetHeads(after))
            page = _decoded(answer, decode_heads)
            found |= {one.domain: one for one in page if one.domain in held}
            if not page or NEXT_PAGE not in answer.headers:
                return found
            last = bytes.fromhex(page[-1].domain)
            if last <= after:
                raise PeerRefused("heads", f"a page begins behind {after.hex()}", _ACTION)
            after = last

    def _domain(self, state: DomainState, shown: HeadDocument | None) -> None:
        is_own = state.id == self.holdings.domain
        heads = self.holdings.signed_heads(None if is_own else state.id)
        bridge = bridge_beyond(self.holdings, state, heads, self.bridges)
        reach = bridge.size if bridge is not None else heads[-1].size if heads else 0
        if not reach:
            return
        size = 0 if shown is None else shown.size
        ours = self.holdings.hash_at(state.id, min(size, state.size))
        if shown is not None and size <= state.size and ours is not None and ours.hex() != shown.head:
            self.domains_told.append(DomainReport(state.id, size, size, "forked", _DIFFERS))
            return
        before, outcome, reason = size, "unchanged" if size >= reach else "pushed", ""
        while size < reach and outcome == "pushed":
            size, outcome, reason = self._parcel(state, heads, bridge, size)
        self.domains_told.append(DomainReport(state.id, before, size, outcome, reason))

    def _parcel(
        self, state: DomainState, heads: Sequence[SignedHead], bridge: Bridge | None, after: int
    ) -> tuple[int, str, str]:
        """Push what follows ``after``: where the peer stands then, and outcome and reason if it does not go on.

        It goes under the first of the ``heads`` that covers it: who sees the domain for the first time knows its signer. What
        none of them covers goes under the head of the ``bridge``.
        """
        earlier = [one for one in heads if one.size <= after]
        covering = heads[len(earlier) :]
        head, reach = (bridge.head, bridge.size) if bridge and not covering else (covering[0], covering[0].size)
        items = batch_items(self.holdings, state.id, after, min(self.limit, reach - after))
        last = items[-1].header.seq
        path = tuple(self.holdings.consistency_proof(state.id, last, reach)) if last < reach else ()
        if bridge is not None and head is bridge.head:
            path = tuple(joined_consistency(last, reach, head.size, path, bridge.hashes))
        document = head_document([*earlier, head], state.status, state.key)
        data = Parcel(document, path, items).to_bytes()
        answer = self.ask(PushRecords(data))
        if answer.status != 200:
            return after, *_refused(answer)
        taken = decode_json(answer.whole, TakenDocument)
        self.bytes += len(data)
        self.conflicts += taken.conflicts
        if not after < taken.after <= max(last, state.size):
            return after, "incomplete", f"it says that it stands at {taken.after} now"
        return taken.after, "pushed", ""

    def _artifacts(self) -> None:
        """Push the bytes that the peer lacks, as far as they are here and published."""
        answer = self.ask(GetLacking())
        if answer.status == 403:
            return  # whoever may not push is told so for the records
        lacking = _decoded(answer, _references)
        self.lacking = len(lacking)
        for reference, is_held in zip(lacking, self.holdings.has(lacking), strict=True):
            if is_held and self._artifact(reference):
                self.lacking -= 1

    def _artifact(self, reference: Reference) -> bool:
        try:
            info = self.holdings.info(reference)
        except (NotFound, Withheld, Erased, Corrupt):
            return False
        if not info.published:
            return False
        head = artifact_head(info.size, info.tag)
        size = len(head) + info.size
        pieces = partial(artifact_pieces, self.holdings, reference, head, 0, size)
        answer = self.ask(PushArtifact(reference, pieces, size))
        if answer.status >= 500 or answer.status == 429:
            raise _Ended(": ".join(_refused(answer)))
        if answer.status == 201:
            self.bytes += size
        return answer.status == 201


class _Ended(Exception):
    """The push cannot go on."""


def _decoded(answer: HttpResponse, decode: Callable[[bytes], T]) -> T:
    if answer.status != 200:
        raise _Ended(": ".join(_refused(answer)))
    try:
        return decode(answer.whole)
    except CodecError as error:
        raise PeerRefused(error.value, error.rule, _ACTION) from None


def _references(data: bytes) -> list[Reference]:
    reader = Reader(data, "references")
    found = read_references(reader)
    reader.end()
    return list(found)


def _refused(answer: HttpResponse) -> tuple[str, str]:
    """Outcome and reason of an answer that is none."""
    outcome = _OUTCOMES.get(answer.status, "incomplete" if answer.status >= 500 else "refused")
    return outcome, f"it answers {told(answer)}"
