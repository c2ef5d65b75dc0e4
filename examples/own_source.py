"""An own source, here a file of JSON lines. Copy the class; the comments say what must be true of its methods."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import tidewarp as tw
from tidewarp.connect import MESSAGE_BYTES_MAX, Raw, Source, Undecodable, Update


class JsonLines(Source):  # of the form {"s": 60, "level": 4.5}, s counted from the epoch of the twin
    def __init__(self, path: str) -> None:
        self.name, self.kind, self.path, self.at = "gauge", "jsonlines", Path(path), 0

    def paths(self) -> Sequence[str]:  # what it sets: a path that the model does not declare is found before the run
        return ["tank.level"]

    def decoder(self, epoch_ns: int) -> JsonLines:  # what has `decode`; with a calendar it subtracts epoch_ns
        return self

    def decode(self, raw: Raw) -> Update:  # equal bytes mean the same in every life: look at nothing else
        try:
            line = json.loads(raw.payload)
            return Update(round(float(line["s"]) * 10**9), (("tank.level", line["level"]),))
        except Exception as error:  # anybody's bytes: a dead letter, counted as "json", and the run goes on
            raise Undecodable(f"{raw.payload!r:.80}", repr(error), "look at the gauge", "json") from error

    async def open(self, positions: Mapping[int, int]) -> None:  # stand behind what the journal holds already
        self.at = positions.get(0, 0)  # partition -> offset of its last message; here there is only partition 0

    async def read(self, limit: int) -> Sequence[Raw] | None:  # one message or more; None: never any more
        with self.path.open("rb") as file:  # what has to be waited for is awaited: close cancels that
            file.seek(self.at)
            lines = iter(lambda: file.readline(MESSAGE_BYTES_MAX), b"")  # nobody is trusted for the length of a line
            raws = [Raw(0, file.tell(), line) for _, line in zip(range(limit), lines, strict=False)]
            self.at = file.tell()  # where the next line begins: such offsets ascend and never change their meaning
        return raws or None


def build(twin: tw.Twin) -> None:
    twin.variable("tank.level", float, low=0, high=10, unit="m")
    twin.connect(JsonLines("gauge.jsonl"))


if __name__ == "__main__":
    Path("gauge.jsonl").write_text("on\n" + "".join(f'{{"s": {60 * n}, "level": {n % 9}}}\n' for n in range(1440)))
    for journal, until in (("whole.tw", None), ("parts.tw", "6h"), ("parts.tw", None)):
        with tw.open(journal, build) as twin:  # an old journal goes on where it stood
            ran = twin.run(until=until)
        print(f"{journal} at {ran.virtual_time_s / 3_600:4.1f} h: digest {ran.digest[:16]}")
    print(f"{ran.inputs} readings, unreadable: {ran.dead}; the replay is equal: {tw.replay(journal, build).equal}")
