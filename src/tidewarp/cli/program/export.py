"""`tidewarp program export`: a receipt as a file for others."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import click

from tidewarp.cli.files import write_new
from tidewarp.cli.frame import emit, json_option
from tidewarp.cli.store.places import STORE, opened_store
from tidewarp.cli.store.references import find_reference
from tidewarp.codec.artifacts import TAG_MODEL, TAG_PROGRAM, TAG_RECEIPT
from tidewarp.codec.edges import DERIVES
from tidewarp.codec.references import Reference
from tidewarp.errors import CodecError, OperatorError
from tidewarp.federation.bundle import Bundle, bundle_of
from tidewarp.federation.exports import export_dsse, export_prov
from tidewarp.store import Store
from tidewarp.store.files import locate, read_seed

__all__ = ["command"]


@click.command()
@click.option("--store", "place", metavar="DIR", type=STORE, required=True, help="Where the receipt is.")
@click.argument("text", metavar="RECEIPT_REF")
@click.option(
    "--format",
    "form",
    type=click.Choice(["dsse", "prov", "bundle"]),
    required=True,
    help="An in-toto statement in a DSSE envelope; PROV-JSON; or all that it takes to check it.",
)
@click.option(
    "-o", "out", metavar="FILE", type=click.Path(path_type=Path, readable=False), required=True, help="A new file."
)
@json_option
def command(place: Path, text: str, form: str, out: Path, as_json: bool) -> int:
    """Write the receipt of a run to a FILE that others can check.

    A bundle has program, inputs and outputs with it, and the proofs that it stands in a signed journal; who has it checks
    it with: tidewarp store verify --bundle FILE. An envelope is signed by the key of the store.
    """
    with opened_store(place, read_only=True) as store:
        ref = find_reference(store.view(scope="all"), text, store=store)
        _check_receipt(store, ref)
        bundle = bundle_of(store, ref, _beside(store, ref), with_claims=form == "bundle")
        data = _exported(store, place, bundle, form)
    write_new(out, [data])
    emit({"path": out, "sha256": sha256(data).digest()}, as_json, _render)
    return 0


def _check_receipt(store: Store, ref: Reference) -> None:
    tag = store.info(ref).tag
    if tag != TAG_RECEIPT:
        what = "a program" if tag == TAG_PROGRAM else "an artifact without a tag" if tag is None else f"of tag {tag}"
        action = "tidewarp program run makes a receipt, and prints its reference: give that one"
        raise OperatorError(f"artifact {ref.hex()}", f"this is {what}, no receipt", action)


def _exported(store: Store, place: Path, bundle: Bundle, form: str) -> bytes:
    if form == "bundle":
        return bundle.to_bytes()
    if form == "dsse":
        return export_dsse(bundle, read_seed(locate(place, create=False, read_only=True)))
    view = store.view(scope="all")
    return export_prov(bundle, [edge for ref, edge in store.edges(type=DERIVES) if view.is_visible(ref)])


def _beside(store: Store, ref: Reference) -> list[Reference]:
    """What people need beside what the receipt names: the files of the models that were run."""
    from tidewarp.twin.replaying import ModelDescriptor

    inputs = bundle_of(store, ref, with_claims=False).computation().manifest.inputs
    files = []
    for one in inputs:
        if store.info(one).tag == TAG_MODEL:
            try:
                files.append(ModelDescriptor.from_bytes(store.get(one)).files)
            except CodecError:  # a payload of others under this tag: it brings nothing
                continue
    return [one for one, is_here in zip(files, store.has(files), strict=True) if is_here]


def _render(document: Mapping[str, Any]) -> str:
    return f"{document['path']} {document['sha256'].hex()}"
