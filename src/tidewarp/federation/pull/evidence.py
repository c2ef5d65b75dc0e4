"""Proofs of forks that a peer knows of and this site does not: each is believed if it is one, whoever shows it."""

from __future__ import annotations

from tidewarp.codec.artifacts import Artifact
from tidewarp.codec.references import Reference
from tidewarp.errors import PeerError
from tidewarp.federation.documents import EvidenceDocument, HeadDocument, decode_evidence
from tidewarp.federation.messages import NEXT_PAGE, Fetched, Forked, GetArtifact, GetEvidence
from tidewarp.federation.proof import ForkProof
from tidewarp.federation.pull.context import Context
from tidewarp.federation.pull.steps import Steps, Unanswered, body_of, conflicting, decoded
from tidewarp.federation.verify import Refusal, Wanted

__all__ = ["learn_forks"]

_FORKED = ("frozen", "resolved")  # what a peer says of a domain that is, or was


def learn_forks(context: Context, shown: list[HeadDocument], known: frozenset[bytes]) -> Steps[None]:
    """Ask for the proofs that domains are forked, of which the peer says so and nothing is ``known`` here."""
    forked = {bytes.fromhex(one.domain) for one in shown if one.status in _FORKED} - known
    after = b""
    while forked:
        try:
            answer = yield GetEvidence(after)
            page = decoded(decode_evidence, body_of(answer), b"")
        except Refusal as refusal:
            yield conflicting(b"", refusal)
            return
        except Unanswered:
            return
        for one in page:
            domain = bytes.fromhex(one.domain)
            if domain in forked:
                forked.remove(domain)
                try:
                    yield from _prove(domain, one)
                except Refusal as refusal:
                    yield conflicting(domain, refusal)
        last = bytes.fromhex(page[-1].conflict) if page else b""
        if last <= after or NEXT_PAGE not in answer.headers:
            return
        after = last


def _prove(domain: bytes, shown: EvidenceDocument) -> Steps[None]:
    """Believe that a domain is forked if the proof is one; refuse what is none."""
    what = f"evidence {shown.evidence[:80]}"
    try:
        reference = Reference.parse(shown.evidence)
        outcome = yield GetArtifact(domain, Wanted(0, reference, None))
        if not isinstance(outcome, Fetched):
            return  # it is not to be had here
        proof = ForkProof.from_bytes(Artifact.from_bytes(outcome.source.read()).payload)
        if (proof.domain, proof.conflict.hex()) != (domain, shown.conflict):
            raise PeerError(what, "it is about another conflict than the one it is shown for", "send its own")
        proof.check()
    except Refusal:
        raise
    except PeerError as error:
        raise Refusal("payload_mismatch", domain, what, str(error), shown.evidence.encode()) from None
    yield Forked(domain, proof.common, proof)
