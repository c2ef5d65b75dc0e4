"""What is common to the steps of a pull: generators of instructions, and the reading of answers."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any, TypeAlias, TypeVar

from tidewarp.codec.batches import BatchItem, decode_batch
from tidewarp.errors import CodecError
from tidewarp.federation.documents import ProofDocument, decode_json
from tidewarp.federation.messages import Conflicting, GetRecords, HttpResponse, Instruction
from tidewarp.federation.refused import told
from tidewarp.federation.verify import Refusal

__all__ = ["Interrupted", "Steps", "Unanswered", "body_of", "conflicting", "decoded", "proof", "records_of"]

T = TypeVar("T")
Steps: TypeAlias = Generator[Instruction, Any, T]
"""Yields instructions; is sent the answer to each request, and None for a notice."""

_UNANSWERED = frozenset({400, 403, 404, 409, 410, 413, 416})


class Interrupted(Exception):
    """The pull cannot go on."""


class Unanswered(Exception):
    """The peer does not answer a question about one domain."""


def body_of(answer: HttpResponse) -> bytes:
    """What the peer answers. Raises Unanswered, Interrupted."""
    if answer.status == 200:
        return answer.whole
    said = f"the peer answered {told(answer)}"
    raise Unanswered(said) if answer.status in _UNANSWERED else Interrupted(said)


def decoded(decode: Callable[[bytes], T], data: bytes, domain: bytes) -> T:
    """What ``data``, an answer about ``domain`` (or about all: empty), says. Raises Refusal."""
    try:
        return decode(data)
    except CodecError as error:
        raise Refusal("payload_mismatch", domain, error.value, error.rule, data) from None


def records_of(asked: GetRecords, data: bytes) -> list[BatchItem]:
    """The records that answer a question which the peer's head says that it can answer. Raises Refusal."""
    items = decoded(decode_batch, data, asked.domain)
    what = f"records of {asked.domain.hex()} behind {asked.after}"
    if not items:
        raise Refusal("payload_mismatch", asked.domain, what, "the head says that there are some, none came", data)
    if len(items) > asked.limit:
        rule = f"at most {asked.limit} were asked for, {len(items)} came"
        raise Refusal("payload_mismatch", asked.domain, what, rule, data)
    return items


def proof(answer: HttpResponse, domain: bytes) -> tuple[bytes, ...]:
    """The hashes of a proof. Raises Refusal, Unanswered, Interrupted."""
    return decoded(lambda data: decode_json(data, ProofDocument).path(), body_of(answer), domain)


def conflicting(domain: bytes, refusal: Refusal) -> Conflicting:
    """The notice of a refusal."""
    return Conflicting(domain, refusal.kind, refusal.key, str(refusal), refusal.data)
