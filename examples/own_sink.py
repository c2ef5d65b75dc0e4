"""An own sink, here a table of a database. Copy the class; the comments say what must be true of its methods."""

from __future__ import annotations

import sqlite3
from collections.abc import Generator, Sequence
from contextlib import ExitStack, closing
from typing import Any

import tidewarp as tw
from tidewarp.connect import Output, Refused, RunIdentity, Sink, to_json

TABLE = "(run, id, pack, CONSTRAINT weighed CHECK (json_extract(pack, '$.value.grams') > 0), PRIMARY KEY (run, id))"


class Table(Sink):  # delivers "once": what it is offered again, it drops
    def __init__(self, path: str) -> None:  # touches nothing: a replay makes a sink too, and never opens it
        self.name, self.kind, self.delivery, self.path, self.held = "packs", "table", "once", path, ExitStack()

    async def open(self, run: RunIdentity) -> str | None:  # the last id it holds of this run; "": none, None: unknown
        self.run, self.db = run, self.held.enter_context(closing(sqlite3.connect(self.path)))
        self.db.execute(f"CREATE TABLE IF NOT EXISTS packs {TABLE}")
        return str(self.db.execute("SELECT coalesce(max(id), '') FROM packs WHERE run = ?", [run.domain]).fetchone()[0])

    async def write(self, batch: Sequence[Output]) -> list[Refused]:  # ids ascend; durable when it returns
        refused = []
        try:
            with self.db:  # rows and their ids in one transaction: after a kill all are there, or none
                for output in batch:
                    try:
                        row = self.run.domain, output.id, to_json(output, self.run)[0].decode()
                        self.db.execute("INSERT INTO packs VALUES (?, ?, ?) ON CONFLICT DO NOTHING", row)
                    except sqlite3.IntegrityError as error:  # no retry would mend it: counted, and the others are held
                        refused.append(Refused(output.id, str(error)))
        except sqlite3.OperationalError as error:  # locked, disk full: after an OSError the batch is offered again
            raise OSError(str(error)) from error
        return refused

    async def close(self) -> None:  # may come twice, and before open
        self.held.close()


def build(twin: tw.Twin) -> None:
    def fill() -> Generator[Any, Any, None]:
        for number in range(240):
            yield twin.env.timeout(30)
            twin.publish_event("pack", {"number": number, "grams": 0 if number == 70 else 500 + number % 7})

    twin.process(fill())
    twin.sink(Table("packs.db"))


if __name__ == "__main__":
    for until in ("1h", "2h", "2h"):  # stopped on the way, resumed, and offered everything once more
        with tw.open("line.tw", build) as twin, closing(sqlite3.connect("packs.db")) as db:
            told = twin.run(until=until).sinks["packs"]
            (rows,) = db.execute("SELECT count(*) FROM packs").fetchone()
        print(f"until {until}: {rows} rows; sent {told['sent']}, held before {told['skipped']}, refused {told['dead']}")
    print("the replay is equal:", tw.replay("line.tw", build).equal)
