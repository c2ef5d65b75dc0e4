"""Poison from outside: quarantined with its reason, the twin goes on, and the replay is the same run."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

import tidewarp as tw
from tidewarp.twin import journal_rows

POISON: list[tuple[bytes, str, str]] = [  # message, rule by which it is counted, what its letter says
    (b'{"path": "a.level", "value": 1', "json", "no JSON"),
    (b"\xff\xfe", "json", "no JSON"),
    (b"", "json", "no JSON"),
    (b'["a.level", 1]', "shape", "a message is an object"),
    (b'{"value": 1}', "shape", "names its path"),
    (b'{"path": "a.level"}', "shape", "value"),
    (b'{"path": ["a.level"], "value": 1}', "path", "a path is text"),
    (b'{"path": {"a": 1}, "value": 1}', "path", "a path is text"),
    (b'{"path": "a.nolevel", "value": 1}', "value", "no such path"),
    (b'{"path": "a.level", "value": "hot"}', "value", "not a number"),
    (b'{"path": "a.level", "value": true}', "value", "not a number"),
    (b'{"path": "a.level", "value": null}', "value", "not a number"),
    (b'{"path": "a.level", "value": NaN}', "json", "no JSON"),
    (b'{"path": "a.level", "value": Infinity}', "json", "no JSON"),
    (b'{"path": "a.level", "value": 1e400}', "json", "no JSON"),
    (b'{"path": "a.count", "value": 18446744073709551616}', "value", "outside int64"),
    (b'{"path": "a.count", "value": 9223372036854775808}', "value", "outside int64"),
    (b'{"path": "a.level", "value": ' + b"[" * 10_000 + b"]" * 10_000 + b"}", "json", "deep"),
    (b'{"path": "a.level", "value": 200}', "value", "at most 100"),
    (b'{"set": {"a.level": 1, "a.count": "many"}}', "value", "not a whole number"),
    (b'{"set": {}}', "shape", "at least one path"),
    (b'{"path": "a.level", "value": 1, "time": "yesterday"}', "time", "time"),
    (b'{"path": "a.level", "value": 1, "id": {"a": 1}}', "id", "printable text"),
    (b'{"path": "a.level", "value": "' + b"x" * (1 << 20) + b'"}', "size", "too long"),
]


@pytest.mark.parametrize(("poison", "rule", "said"), POISON, ids=range(len(POISON)))
def test_poison_is_a_dead_letter_and_changes_nothing_else(tmp_path: Path, poison: bytes, rule: str, said: str) -> None:
    """Between two good messages: both are applied, the letter keeps bytes and reason, the replay has the digest."""

    async def messages() -> AsyncIterator[Any]:
        yield {"path": "a.level", "value": 1}
        yield poison
        yield {"path": "a.level", "value": 2, "time": "2026-01-01T00:00:00Z", "new_field_of_a_newer_schema": [1]}

    def build(twin: tw.Twin) -> None:
        level = twin.variable("a.level", float, high=100)
        twin.variable("a.count", int)

        def follow() -> Any:
            changes = level.changes()
            while True:
                twin.publish_event("level", (yield changes.next()).new)

        twin.process(follow())
        twin.connect(tw.sources.python(messages))

    path = tmp_path / "a.tw"
    with tw.open(path, build) as twin:
        summary = twin.run(factor=0)
        assert (twin.registry.get("a.level").value, twin.registry.get("a.count").value) == (2.0, None)
    assert (summary.inputs, summary.dead, summary.outputs) == (2, {rule: 1}, 2)
    [letter] = journal_rows(path, kind="dead")
    assert said in letter["message"], letter["message"]
    assert (letter["source"], letter["offset"]) == ("python", 1)
    again = tw.replay(path, build)
    assert (again.equal, again.digest) == (True, summary.digest)
