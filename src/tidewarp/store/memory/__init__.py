"""A store in memory: the model that the others are tested against, and the journal of runs that keep nothing.

state        all that it holds, as one value
turns        who may change that, and who sees what: transactions
artifacts    bytes, edges, and what records of the own domain say of them
domains      the logs of all domains
collection   pins, garbage, the check
tables       tables of upper layers
journal      the own log as a Journal
store        put together
"""

from __future__ import annotations

from tidewarp.store.memory.journal import MemoryJournal
from tidewarp.store.memory.store import MemoryStore
from tidewarp.store.memory.tables import MemoryTables

__all__ = ["MemoryJournal", "MemoryStore", "MemoryTables"]
