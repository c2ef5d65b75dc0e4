"""Writes ``stores-FORMAT.tar.gz``: a store in a directory and one in a file, as this release makes them, and what they hold.

``tests/store/test_old_stores.py`` opens them for ever. Run once when a release is made that changes the format::

    python tests/golden/make_stores.py

The archive has ``A/`` (blocks as files) and ``A.tw`` (blocks as rows), each with its key, closed, and ``held.json``: domain,
head, state hashes and references in hex, as the release saw them.
"""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from pathlib import Path
from tempfile import TemporaryDirectory

from tidewarp.codec import INPUT, timed_body
from tidewarp.codec.artifacts import TAG_PROGRAM
from tidewarp.codec.edges import DERIVES, Edge
from tidewarp.codec.receipts import Executor
from tidewarp.programs import OperationRegistry, build_program
from tidewarp.programs.runs import run
from tidewarp.store import Store, open_store
from tidewarp.store.contract import Entry
from tidewarp.store.described import describe
from tidewarp.testing.contents import Site

JOIN = {"inputs": ["a", "b"], "nodes": {"j": {"op": "pel.bytes.concat/1", "in": ["a", "b"]}}, "outputs": ["j"]}
SMALL, LARGE = b"in a row", bytes(range(250)) * 4


def fill(store: Store) -> None:
    """Everything that a store may hold: of each kind one."""
    registry = OperationRegistry.kernel()
    small, large, hidden = store.put(SMALL), store.put(LARGE, tag=7), store.put(b"hidden")
    store.put(b"internal", publish=False)
    store.put_edge(Edge(DERIVES, (small,), (large,)))
    program = store.put(build_program(JOIN, registry).to_bytes(), tag=TAG_PROGRAM)
    (own,) = store.domains()
    run(store, program, [small, hidden], registry=registry, executor=Executor(own.key, "site-a"))
    store.tombstone(hidden)
    store.point("latest", large)
    store.pin("small", small)
    inputs = [Entry(INPUT, timed_body(tick, b"input"), last_tick=tick + 3) for tick in range(20)]
    store.journal.append(inputs, cursors={"source": b"20"})
    site = Site(bytes([9]) * 32)
    site.put(b"theirs")
    site.write(0x80, b"theirs alone", flags=0)
    site.give(store)
    store.pin("then", store.snapshot())
    store.signed_head()


def held(store: Store) -> dict[str, object]:
    """What is compared with a store that is opened later."""
    return {
        "domain": store.domain.hex(),
        "size": store.journal.size,
        "head": store.journal.head.hex(),
        "visible": [ref.hex() for ref in store.view(scope="all").visible()],
        "state_hash": store.state_hash().hex(),
        "state_hash_all": store.state_hash("all").hex(),
        "snapshot": store.snapshot().id().hex(),
        "note": store.signed_head().note(),  # type: ignore[union-attr] # a store that is written has one
    }


def main() -> None:
    """Write the archive beside this file; the same bytes from the same release, but for those of SQLite's pages."""
    told: dict[str, object] = {}
    with TemporaryDirectory() as folder:
        for name in ("A", "A.tw"):
            place = Path(folder) / name
            if not place.suffix:
                place.mkdir()
            with open_store(place, create=True, key=bytes(range(32)), inline_max=100, shards=3) as store:
                fill(store)
                told[name] = held(store)
            release = describe(place).format
        (Path(folder) / "held.json").write_text(json.dumps(told, indent=1) + "\n")
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as archive:
            for file in sorted(Path(folder).rglob("*")):
                if file.is_file() and not file.name.endswith(("lock", "-wal", "-shm")):
                    info = tarfile.TarInfo(str(file.relative_to(folder)))
                    info.size = file.stat().st_size
                    archive.addfile(info, io.BytesIO(file.read_bytes()))
        target = Path(__file__).with_name(f"stores-{release}.tar.gz")
        target.write_bytes(gzip.compress(packed.getvalue(), mtime=0))
        print(f"{target}: {target.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
