"""The suites for stores: derive from one, and pytest checks your store against the contract.

    class TestMyStore(DurableStoreConformance):
        def create(self, folder):
            return MyStore(folder / "journal", create=True)

        def reopen(self, folder):
            return MyStore(folder / "journal")

The contract is :mod:`tidewarp.store.contract`. Importing this module needs the extra ``test`` (else MissingExtra).
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from itertools import count
from pathlib import Path

from tidewarp.store.contract import Store
from tidewarp.testing.contents import ArtifactMachine, ContentConformance
from tidewarp.testing.faults import hearing
from tidewarp.testing.journals import JournalConformance, inputs
from tidewarp.testing.machine import StoreMachine, check_journal
from tidewarp.testing.suites import SAFETY_S, made

__all__ = ["ArtifactMachine", "DurableStoreConformance", "StoreConformance", "StoreMachine", "inputs"]


class StoreConformance(JournalConformance, ContentConformance):
    """Tests of one store, which need not be durable. Give :meth:`create`."""

    def create(self, folder: Path) -> Store:
        """A new, empty store in ``folder``, which is empty and the store's own."""
        raise NotImplementedError("a suite for a store needs create(folder)")

    def _reopening(self) -> Callable[[Path], Store] | None:
        return None


class DurableStoreConformance(StoreConformance):
    """Tests of a store whose journal outlives the process, in files of its folder. Give :meth:`reopen` too."""

    def reopen(self, folder: Path) -> Store:
        """The store that was created in ``folder``, or of which a copy lies there, opened for writing."""
        raise NotImplementedError("a suite for a durable store needs reopen(folder)")

    def _reopening(self) -> Callable[[Path], Store]:
        return self.reopen

    def test_what_is_acknowledged_outlives_a_crash(self, tmp_path: Path) -> None:
        """The files as they are when append returns, and when a submission is done, hold its entries and cursors."""
        with self.create(made(tmp_path / "live")) as store:
            store.journal.append(inputs(3), cursors={"s": b"1"})
            shutil.copytree(tmp_path / "live", tmp_path / "1")
            store.journal.submit(inputs(3), cursors={"s": b"2"}).result(SAFETY_S)
            shutil.copytree(tmp_path / "live", tmp_path / "2")
        for n in (1, 2):
            with self.reopen(tmp_path / f"{n}") as store:
                check_journal(store.journal, inputs(3) * n)
                assert store.journal.cursor("s") == b"%d" % n

    def test_a_crash_leaves_a_batch_whole_or_absent(self, tmp_path: Path) -> None:
        """Entries and cursors are one transaction: at whatever stage the files are taken, both are there or neither is."""
        numbers = count(1)
        with self.create(made(tmp_path / "live")) as store:
            store.journal.append(inputs(2), cursors={"s": b"old"})
            with hearing(lambda *_: shutil.copytree(tmp_path / "live", tmp_path / f"{next(numbers)}")) as stages:
                store.journal.append(inputs(5), cursors={"s": b"new"})
        assert stages, (
            'call tidewarp.observe.stage("journal.inside"), "journal.commit", "journal.after" around the commit'
        )
        for n in range(1, next(numbers)):
            with self.reopen(tmp_path / f"{n}") as store:
                found = (store.journal.size, store.journal.cursor("s"))
                assert found in ((2, b"old"), (7, b"new")), f"at stage {n} of {list(stages)}"
                store.journal.append(inputs(1))
                check_journal(store.journal, (inputs(2) + inputs(5))[: found[0]] + inputs(1))

    def test_a_crash_leaves_an_artifact_whole_or_absent(self, tmp_path: Path) -> None:
        """Of a small one and a large one, at whatever stage the files are taken: never a record without its bytes."""
        payloads = [b"small", bytes(range(256)) * 1_500]
        numbers = count(1)
        with self.create(made(tmp_path / "live")) as store:
            store.put(b"before")
            with hearing(lambda *_: shutil.copytree(tmp_path / "live", tmp_path / f"{next(numbers)}")) as stages:
                refs = [store.put(payload) for payload in payloads]
        assert stages
        found = set()
        for n in range(1, next(numbers)):
            with self.reopen(tmp_path / f"{n}") as store:
                held = store.has(refs)
                found.add(tuple(held))
                assert store.journal.size == 1 + sum(held)
                assert [store.get(ref) for ref, is_here in zip(refs, held, strict=True) if is_here] == payloads[
                    : sum(held)
                ]
                assert [store.put(payload) for payload in payloads] == refs
                assert (store.journal.size, [store.get(ref) for ref in refs]) == (3, payloads)
        assert found == {(False, False), (True, False), (True, True)}, f"at the stages {list(stages)}"
