"""`tidewarp store verify`: is everything in a store, or in a bundle, what it says?"""

from __future__ import annotations

from collections.abc import Mapping
from io import BufferedReader
from pathlib import Path
from typing import Any

import click

from tidewarp.cli.frame import emit, json_option
from tidewarp.cli.program.operations import limits_for, models_option, registry_of
from tidewarp.cli.store.ledger import find_ledger
from tidewarp.cli.store.models import save_model
from tidewarp.cli.store.places import STORE, opened_store
from tidewarp.cli.store.verdicts import NOTHING_EXECUTED, counted, finding_of
from tidewarp.codec.bodies import RECEIPT
from tidewarp.codec.records import RecordHeader, record_hash
from tidewarp.errors import Corrupt, OperatorError, PeerError
from tidewarp.federation.bundle import BUNDLE_BYTES_MAX, Bundle
from tidewarp.programs.verification import Outcome, check_receipt, reexecute
from tidewarp.store import Store
from tidewarp.store.audit import TWO_HISTORIES, Audited, Finding, audit
from tidewarp.store.files import open_regular
from tidewarp.store.fold.conflicts import FORK

__all__ = ["command"]

_SEED_MAX = (1 << 64) - 1


@click.command()
@click.argument("place", metavar="[DIR]", type=STORE, required=False)
@click.option("--reexecute", "sample", metavar="N", type=click.IntRange(min=0), default=0, help="Run N receipts again.")
@click.option(
    "--seed",
    metavar="S",
    type=click.IntRange(0, _SEED_MAX),
    default=0,
    show_default=True,
    help="Which of them, if there are more.",
)
@click.option(
    "--bundle",
    "file",
    metavar="FILE",
    type=click.Path(path_type=Path, readable=False),
    help="A bundle, in place of DIR.",
)
@click.option(
    "--model-files",
    "folder",
    metavar="NEW_DIR",
    type=click.Path(path_type=Path, readable=False),
    help="With --bundle: write the files of its model to a new folder, to be read before they are named with --model.",
)
@models_option
@json_option
def command(
    place: Path | None,
    sample: int,
    seed: int,
    file: Path | None,
    folder: Path | None,
    models: tuple[str, ...],
    as_json: bool,
) -> int:
    """Check every record and every artifact of the store DIR: chains, bodies, signed heads, bytes, what receipts say.

    No program is run without --reexecute. Ends with 1 and the first thing that is wrong, if anything is, also if a domain
    has two histories or a computation two outcomes. A receipt that a verdict has overruled is counted, and wrong no more.
    (The journal of one twin: tidewarp verify.)

    With --bundle the file of an export is checked, and its receipt executed: ends with 0 only if the same came out.
    """
    if (place is None) == (file is None):
        raise OperatorError("store verify", "it checks either a store or a bundle", "give DIR, or --bundle FILE")
    if place is not None and folder is not None:
        raise OperatorError("--model-files", "a bundle has files, a store has artifacts", "tidewarp store get DIR REF")
    if place is not None and models and not sample:
        action = "say --reexecute N too, or leave --model out"
        raise OperatorError(f"--model {models[0]}", "without --reexecute no program of a store is run", action)
    document = _of_bundle(file, folder, models) if place is None else _of_store(place, sample, seed, models)
    emit(document, as_json, _render)
    return 0 if document["ok"] else 1


def _of_store(place: Path, sample: int, seed: int, models: tuple[str, ...]) -> dict[str, Any]:
    executed = NOTHING_EXECUTED
    try:
        with opened_store(place, read_only=True) as store:
            found = audit(store)
            forks = _forks(store, place)
            told = {fork.where for fork in forks}
            others = [one for one in found.findings if one.rule != TWO_HISTORIES or one.where not in told]
            found = found._replace(findings=(*others, *forks))
            if sample:
                report = reexecute(store, sample, seed, registry_of(models))
                executed = counted(report.verdicts)
                found = found._replace(findings=(*map(finding_of, report.bad), *found.findings))
    except Corrupt as error:  # not even the tables can be read
        found = Audited(0, 0, 0, (Finding(error.value, error.rule, error.action, error.seq),))
    return _document(found, executed)


def _of_bundle(file: Path | None, folder: Path | None, models: tuple[str, ...]) -> dict[str, Any]:
    assert file is not None  # or there was a store
    with BufferedReader(open_regular(file)) as stream:
        data = stream.read(BUNDLE_BYTES_MAX + 1)
    try:
        bundle = Bundle.from_bytes(data)
    except PeerError as error:
        bad = Finding(f"bundle {file}: {error.value}", error.rule, error.action)
        return {**_document(Audited(0, 0, 0, (bad,)), NOTHING_EXECUTED), "receipt": None, "journaled": []}
    if folder is not None:
        save_model(bundle, folder)
    verdict = check_receipt(bundle.receipt, bundle.read, registry_of(models), limits_for(len(data)))
    findings = () if verdict.outcome is Outcome.SAME else (finding_of(verdict),)
    found = Audited(len(bundle.records), len(bundle.artifacts), 1, findings)
    return {
        **_document(found, counted([verdict])),
        "receipt": bundle.receipt.hex(),
        "journaled": [_journaled(one.header) for one in bundle.records],
    }


def _journaled(header: RecordHeader) -> dict[str, Any]:
    """What a domain has signed: that it holds the receipt, or that its journal begins with what was run on."""
    what = "receipt" if header.kind == RECEIPT else "input"
    return {"what": what, "domain": header.domain, "seq": header.seq, "head": record_hash(header.to_bytes())}


def _document(found: Audited, executed: Mapping[str, Any]) -> dict[str, Any]:
    first = found.findings[0]._asdict() if found.findings else None
    return {
        "ok": first is None,
        "records": found.records,
        "artifacts": found.artifacts,
        "receipts": found.receipts,
        **executed,
        "bad": len(found.findings),
        "first_bad": first,
    }


def _forks(store: Store, place: Path) -> list[Finding]:
    """The forks that pulls have met, and nobody has resolved."""
    ledger = find_ledger(store, place)
    action = "ask its operator which history is meant"
    return [
        Finding(f"domain {one.domain.hex()}", f"{TWO_HISTORIES}: {one.rule}", action)
        for one in ([] if ledger is None else ledger.conflicts())
        if (one.kind, one.state) == (FORK, "open")
    ]


def _render(document: Mapping[str, Any]) -> str:
    first = document["first_bad"]
    read = f"{document['records']:,} records, {document['artifacts']:,} artifacts, {document['receipts']:,} receipts"
    lines = [f"{'ok ' if first is None else 'bad'}          {read}"]
    if document["reexecuted"]:
        lines.append(f"executed     {document['reexecuted']:,}: {document['same']:,} came out the same")
    lines += [
        f"{name:12} {document[name]:,}" for name in ("overruled", "incomparable", "unavailable") if document[name]
    ]
    if document["first_unavailable"] is not None and first is None:
        lines.append(f"the first:   {document['first_unavailable']}")
    lines += [_signed(**one) for one in document.get("journaled", ())]
    if first is not None:
        place = first["where"] + (f", record {first['seq']}" if first["seq"] is not None else "")
        lines.append(f"{document['bad']} wrong, the first: {place}: {first['rule']}; {first['action']}")
    return "\n".join(lines)


def _signed(what: str, domain: bytes, seq: int, head: bytes) -> str:
    if what == "receipt":
        return f"signed       the receipt is record {seq:,} of domain {domain.hex()}"
    return f"signed       it ran on records 1 to {seq:,} of domain {domain.hex()}, head {head.hex()}"
