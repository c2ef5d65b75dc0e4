"""The receipt of a journal: its run made again as a program, and what came of it kept for others to check."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tidewarp.cli.files import refuse_taken, write_new
from tidewarp.cli.program.operations import limits_for
from tidewarp.cli.store.places import opened_store
from tidewarp.codec import DIGEST
from tidewarp.codec.ed25519 import public_key_of
from tidewarp.codec.receipts import Executor
from tidewarp.codec.records import Record, domain_of
from tidewarp.errors import OperatorError
from tidewarp.federation.bundle import bundle_of, vouched_end
from tidewarp.programs import OperationRegistry
from tidewarp.programs.runs import run
from tidewarp.store import key_fault, open_store
from tidewarp.store.files import locate, read_seed
from tidewarp.twin import load_model
from tidewarp.twin.documents import Mark
from tidewarp.twin.facts import Records, facts, opening_of, stop_at_end
from tidewarp.twin.replay import recorded_model
from tidewarp.twin.replaying import register_replay, run_inputs

__all__ = ["write_receipt"]

_NAME_DIGITS = 16


def write_receipt(journal: Path, out: Path, *, model: str | None, place: Path | None) -> dict[str, Any]:
    """Run ``journal`` again as ``tidewarp.journal.replay/1`` and write the bundle of its receipt to the new file ``out``.

    The receipt is signed by the key of the journal, or, where a store is given, by that store's, which keeps it too.

    Args:
        journal: a twin's.
        out: a file that is not there yet.
        model: ``FILE.py[:function]``; None: what the journal recorded, beside it.
        place: a store that keeps the receipt, and all that it names, and publishes it.

    Returns:
        ``receipt``, ``computation_key``, ``replayed`` (the run digest that came out, hex), ``equal`` (whether it is the one
        that the journal ends with; None after a kill) and ``bundle``, the file.

    Raises:
        OperatorError: no model, no key of the journal and no store; the file is there. OutOfModel: the model raised.
    """
    refuse_taken(out)
    with open_store(journal, read_only=True) as opened:
        records = list(opened.journal.read())
        recorded = opening_of(opened.journal).model
        digest = _digest_at_end(opened.journal)
    build = recorded_model(recorded, journal) if model is None else load_model(model)
    needed = run_inputs(records, build)
    registry = OperationRegistry.kernel()
    register_replay(registry, build)
    own = _own_seed(journal, records)
    with ExitStack() as stack:
        store = stack.enter_context(open_store(":memory:") if place is None else opened_store(place))
        seed = own if place is None else read_seed(locate(place, create=False, read_only=True))
        if seed is None:
            raise OperatorError(
                str(journal),
                "its key is not beside it, and a receipt is somebody's word",
                "put the key back, or give a store that signs: --store DIR",
            )
        public_key = public_key_of(seed)
        program, *inputs = store.put_many([needed.program, *needed.inputs])
        files = store.put(needed.files.payload)
        done = run(
            store,
            program,
            inputs,
            registry=registry,
            executor=Executor(public_key, domain_of(public_key).hex()[:_NAME_DIGITS]),
            seed=seed,
            force=True,  # an earlier receipt is no reason to believe it
            limits=limits_for(sum(len(one.payload) for one in needed.inputs)),
        )
        store.signed_head()
        bundle = bundle_of(store, done.receipt, [files], with_claims=place is not None)
        replayed = store.get(done.outputs[0]).hex()
    if own is not None:
        bundle = bundle._replace(records=(*bundle.records, vouched_end(records, own)))
    equal = None if digest is None else digest == replayed
    write_new(out, [bundle.to_bytes()])
    return {
        "receipt": done.receipt.hex(),
        "computation_key": done.key,
        "replayed": replayed,
        "bundle": out,
        "equal": equal,
    }


def _digest_at_end(journal: Records) -> str | None:
    """The run digest that the journal ends with; None if the run was not ended in order, or went on since."""
    if stop_at_end(journal) is None:
        return None
    marks = [fact.what for fact in facts(journal, kinds={DIGEST}) if isinstance(fact.what, Mark)]
    return marks[-1].digest if marks else None


def _own_seed(journal: Path, records: list[Record]) -> bytes | None:
    """The seed of the journal's own key, if it is here."""
    if key_fault(journal, records[0].header.domain) is not None:
        return None
    return read_seed(locate(journal, create=False, read_only=True))
