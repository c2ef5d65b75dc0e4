"""Both stores keep what every store has to keep; what only a file can do, the machine of files does beside it."""

from __future__ import annotations

import pytest
from hypothesis import stateful

from tidewarp.errors import StoreLocked
from tidewarp.store import MemoryStore, Settings, SqliteStore, check_file, open_store
from tidewarp.testing.stores import DurableStoreConformance, StoreConformance, StoreMachine

NAME = "a %3f#.tw"


class FileMachine(StoreMachine):
    """A reader, a second writer and the check of the whole file stand beside the writer."""

    @stateful.rule()
    def stand_alone(self) -> None:
        """A closed file has its key and its lock beside it, and nothing else."""
        self.close()
        assert {one.name for one in self.folder.iterdir()} == {NAME + end for end in ("", ".key", ".lock")}
        self.store = SqliteStore(self.folder / NAME)

    @stateful.rule()
    def second_writer(self) -> None:
        with pytest.raises(StoreLocked, match=r"process \d+"):
            open_store(self.folder / NAME)

    @stateful.precondition(lambda self: not self.waiting)
    @stateful.rule()
    def stand_beside(self) -> None:
        """A reader, and the check of the whole file, see what the writer acknowledged; a store in memory agrees with both."""
        journal = self.store.journal
        (key,) = self.store._db.execute("SELECT value FROM meta WHERE name = 'root_public_key'").fetchone()
        with MemoryStore(key) as memory, open_store(self.folder / NAME, read_only=True) as beside:
            memory.journal.append(self.entries)
            assert list(beside.journal.read()) == list(journal.read()) == list(memory.journal.read())
            assert beside.journal.cursors() == self.positions
        assert check_file(self.folder / NAME) == (len(self.entries), journal.head, journal.domain)


class TestSqliteStore(DurableStoreConformance):
    machine = FileMachine

    def create(self, folder):
        return SqliteStore(folder / NAME, create=True)

    def reopen(self, folder):
        return SqliteStore(folder / NAME)


class TestSmallRows(DurableStoreConformance):
    """All but the smallest payloads are blocks, in rows of their own."""

    def create(self, folder):
        return SqliteStore(folder / NAME, create=True, settings=Settings(inline_max=100))

    def reopen(self, folder):
        return SqliteStore(folder / NAME)


class TestFolder(DurableStoreConformance):
    """A store in a directory: all but the smallest payloads are blocks, in files."""

    def create(self, folder):
        return SqliteStore(folder, create=True, settings=Settings(inline_max=100))

    def reopen(self, folder):
        return SqliteStore(folder)


class TestMemoryStore(StoreConformance):
    def create(self, folder):
        return MemoryStore()
