"""``tidewarp store``: one file per command, and

places       the paths that the commands take
references   the text of a reference, or the beginning of one
kinds        names of the kinds of records
ledger       what is known of the exchange with other sites
sources      peers as sources of bytes
verdicts     receipts that were executed, as counts and findings
models       the files of a model that a bundle brings
"""

from __future__ import annotations

import click

from tidewarp.cli.lazy import Entry, LazyGroup

__all__ = ["command"]

COMMANDS: dict[str, Entry] = {
    "init": Entry("tidewarp.cli.store.init:command", "Make an empty store, with an identity of its own."),
    "put": Entry("tidewarp.cli.store.put:command", "Keep a file, and print its reference."),
    "get": Entry("tidewarp.cli.store.get:command", "The bytes that a reference names."),
    "stat": Entry("tidewarp.cli.store.stat:command", "Count what is in a store."),
    "digest": Entry("tidewarp.cli.store.digest:command", "The hash that two stores compare."),
    "conflicts": Entry("tidewarp.cli.store.conflicts:command", "Show what contradicts what, and settle it."),
    "log": Entry("tidewarp.cli.store.log:command", "Show the records of every domain, undecoded."),
    "verify": Entry("tidewarp.cli.store.verify:command", "Check every record and every byte."),
    "fsck": Entry("tidewarp.cli.store.fsck:command", "Read everything, and mend what can be mended."),
    "snapshot": Entry("tidewarp.cli.store.snapshot:command", "Keep what is visible now under a name."),
    "keys": Entry("tidewarp.cli.store.keys:command", "Print who may sign for a store, or choose it."),
    "quota": Entry("tidewarp.cli.store.quota:command", "Print how many bytes a store may hold, or choose it."),
    "reshard": Entry("tidewarp.cli.store.reshard:command", "Divide the records of a store anew."),
    "upgrade": Entry("tidewarp.cli.store.upgrade:command", "Copy the journal of an earlier release into a store."),
    "gc": Entry("tidewarp.cli.store.gc:command", "Drop bytes that nobody needs any more."),
    "bench": Entry("tidewarp.cli.store.bench:command", "Measure stores beside raw SQLite, files and git."),
}


@click.group(cls=LazyGroup, entries=COMMANDS)
def command() -> None:
    """Keep artifacts and records, and compare stores.

    DIR is the directory of a store, or a file NAME.tw.
    """
