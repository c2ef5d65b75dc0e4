"""Receipts in the words of others: in-toto statements in DSSE envelopes, and PROV-JSON. Pure.

Both are made of a :class:`~tidewarp.federation.bundle.Bundle`, whose names, proofs and signatures have been checked. Sources:
in-toto Statement v1 and DSSE v1 (:mod:`tidewarp.codec.dsse`); The PROV-JSON Serialization, W3C Member Submission of
24 April 2013.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from hashlib import sha256
from typing import Any

from tidewarp.codec.artifacts import TAG_EXECUTOR
from tidewarp.codec.dsse import IN_TOTO, Subject, receipt_statement, sign_envelope
from tidewarp.codec.edges import DERIVES, Edge
from tidewarp.codec.receipts import Executor, Receipt
from tidewarp.codec.references import Reference
from tidewarp.federation.bundle import Bundle
from tidewarp.units import TICK_MAX, format_instant

__all__ = ["export_dsse", "export_prov"]

_NAMESPACE = "urn:tidewarp:"


def export_dsse(bundle: Bundle, seed: bytes) -> bytes:
    """A DSSE envelope, signed by the Ed25519 ``seed`` (32 bytes): the outputs are the subjects, the receipt is the predicate.

    The subjects are named by their references, and compared by the SHA-256 of their payloads. A failed run has its result
    as the subject.
    """
    receipt, computation = bundle.statement(), bundle.computation()
    subjects = [
        Subject(ref.hex(), sha256(bundle.read(ref).payload).digest())
        for ref in dict.fromkeys(bundle.outputs() or (receipt.output,))
    ]
    params = computation.manifest.params
    fields: dict[str, Any] = {
        "computationKey": computation.key.hex(),
        "evaluator": receipt.evaluator.decode(errors="replace"),
        "executors": [_executor(bundle, ref) for ref in receipt.executors],
        "inputs": [ref.hex() for ref in computation.manifest.inputs],
        "output": receipt.output.hex(),
        "params": None if params is None else params.hex(),
        "platform": computation.environment.platform,
        "program": receipt.function.hex(),
        "reference": bundle.receipt.hex(),
        "startedNs": str(receipt.started),
        "completedNs": str(receipt.completed),
    }
    statement = receipt_statement(subjects, bundle.read(bundle.receipt).payload, fields)
    return sign_envelope(IN_TOTO, statement.to_bytes(), seed).to_bytes() + b"\n"


def export_prov(bundle: Bundle, edges: Iterable[Edge] = ()) -> bytes:
    """PROV-JSON: artifacts are entities, the run is an activity, executors are agents, the program is their plan.

    ``edges`` of type 1 between the run's artifacts say which was derived from which: their targets from their sources.
    Times are there if the receipt has them.
    """
    receipt, computation = bundle.statement(), bundle.computation()
    outputs = tuple(dict.fromkeys(bundle.outputs() or (receipt.output,)))
    params = computation.manifest.params
    used = dict.fromkeys((*computation.manifest.inputs, *(() if params is None else (params,))))
    run = _name(bundle.receipt, "run")
    entities = dict.fromkeys((*used, *outputs, receipt.function))
    document: dict[str, Any] = {
        "prefix": {"tw": _NAMESPACE},
        "entity": {_name(ref): _entity(bundle, ref) for ref in entities},
        "activity": {run: _activity(receipt, computation.key)},
        "used": _numbered("u", ({"prov:activity": run, "prov:entity": _name(ref)} for ref in used)),
        "wasGeneratedBy": _numbered("g", ({"prov:entity": _name(ref), "prov:activity": run} for ref in outputs)),
    }
    if receipt.executors:
        document["agent"] = {_name(ref): _agent(bundle, ref) for ref in receipt.executors}
        document["wasAssociatedWith"] = _numbered(
            "a",
            (
                {"prov:activity": run, "prov:agent": _name(ref), "prov:plan": _name(receipt.function)}
                for ref in receipt.executors
            ),
        )
    derived = _numbered("d", _derivations(edges, entities))
    if derived:
        document["wasDerivedFrom"] = derived
    text = json.dumps(document, ensure_ascii=False, sort_keys=True, indent=1, allow_nan=False)
    return text.encode() + b"\n"


def _name(ref: Reference, kind: str = "artifact") -> str:
    return f"tw:{kind}-{ref.hex()}"


def _numbered(letter: str, relations: Iterable[dict[str, str]]) -> dict[str, dict[str, str]]:
    """Relations by blank names, as PROV-JSON asks for."""
    return {f"_:{letter}{number}": relation for number, relation in enumerate(relations, 1)}


def _entity(bundle: Bundle, ref: Reference) -> dict[str, Any]:
    payload, tag = bundle.read(ref)
    described: dict[str, Any] = {"tw:bytes": len(payload)}
    return described if tag is None else {**described, "tw:tag": tag}


def _activity(receipt: Receipt, key: bytes) -> dict[str, str]:
    described = {"prov:type": "tw:run", "tw:computationKey": key.hex()}
    if 0 < receipt.completed <= TICK_MAX:  # what is beyond no clock has said
        described["prov:startTime"] = format_instant(receipt.started)
        described["prov:endTime"] = format_instant(receipt.completed)
    return described


def _agent(bundle: Bundle, ref: Reference) -> dict[str, str]:
    executor = _executor(bundle, ref)
    return {"prov:type": "tw:executor", **{f"tw:{key}": value for key, value in executor.items() if key != "reference"}}


def _executor(bundle: Bundle, ref: Reference) -> dict[str, str]:
    found = bundle.artifacts.get(ref)
    if found is None or found.tag != TAG_EXECUTOR:
        return {"reference": ref.hex()}
    executor = Executor.from_bytes(found.payload)
    return {"reference": ref.hex(), "name": executor.name, "publicKey": executor.public_key.hex()}


def _derivations(edges: Iterable[Edge], entities: Iterable[Reference]) -> Iterable[dict[str, str]]:
    known = set(entities)
    pairs = {
        (target, source)
        for edge in edges
        if edge.type == DERIVES
        for target in edge.targets
        for source in edge.sources
        if {target, source} <= known
    }
    return [
        {"prov:generatedEntity": _name(target), "prov:usedEntity": _name(source)} for target, source in sorted(pairs)
    ]
