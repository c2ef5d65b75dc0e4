"""`tidewarp program verdict`: say which result of a computation counts, having executed it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from tidewarp.cli.frame import emit, json_option
from tidewarp.cli.program.operations import models_option, registry_of
from tidewarp.cli.program.run import executor_of
from tidewarp.cli.store.places import STORE, opened_store
from tidewarp.cli.store.references import find_reference
from tidewarp.programs.judging import judge
from tidewarp.programs.verification import Outcome, verify_receipt
from tidewarp.store.files import locate, read_seed

__all__ = ["command"]


@click.command()
@click.option(
    "--store", "place", metavar="DIR", type=STORE, required=True, help="That of a domain with the role audit."
)
@click.argument("text", metavar="RECEIPT_REF")
@models_option
@json_option
def command(place: Path, text: str, models: tuple[str, ...], as_json: bool) -> int:
    """Execute what a receipt is about, and say in a record what comes out: from then on that counts.

    All receipts that claim something else are marked as wrong, on every site that pulls the record, and the runs that
    wait for the result go on. Only the word of a domain that has the role audit counts.
    """
    with opened_store(place) as store:
        ref = find_reference(store.view(scope="all"), text, store=store)
        done = judge(
            store,
            ref,
            registry_of(models),
            executor=executor_of(store),
            seed=read_seed(locate(place, create=False, read_only=True)),
        )
        store.signed_head()  # for a server beside, which cannot sign
        claims = {claim.receipt for claim in store.view(scope="all").receipts(done.key)}
        verdicts = [verify_receipt(store, one, registry_of(), reexecute=False) for one in sorted(claims)]
    document = {
        "computation_key": done.key,
        "output_refs": [one.hex() for one in done.outputs],
        "result_ref": done.result.hex(),
        "receipt_ref": done.receipt.hex(),
        "wrong": [
            {
                "receipt_ref": one.receipt.hex(),
                "domains": list(one.domains),
                "executors": [{"name": who.name, "public_key": who.public_key} for who in one.executors],
                "signed_by": one.signer,
            }
            for one in verdicts
            if one.outcome is Outcome.DIFFERENT
        ],
    }
    emit(document, as_json, _render)
    return 0


def _render(document: Mapping[str, Any]) -> str:
    lines = [f"computation {document['computation_key'].hex()}"]
    lines += [f"output      {ref}" for ref in document["output_refs"]]
    for one in document["wrong"]:
        names = ", ".join(f"{who['name']!r}" for who in one["executors"])
        domains = ", ".join(domain.hex() for domain in one["domains"])
        lines.append(f"wrong       receipt {one['receipt_ref']} of executor {names}, in the journal of {domains}")
    return "\n".join(lines)
