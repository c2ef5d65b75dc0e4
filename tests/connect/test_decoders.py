"""JSON messages: what they say, and that nothing from outside does more than become a dead letter."""

from __future__ import annotations

import json
from typing import Any

import pytest
from gate_driver import Driver
from hypothesis import example, given
from hypothesis import strategies as st

from tidewarp.connect.contract import MESSAGE_BYTES_MAX, Raw, Undecodable, Update
from tidewarp.connect.decoders import ID_BYTES_MAX, JsonMessages
from tidewarp.connect.gate import Arrived, Connected, Policy

S = 10**9
EPOCH_NS = 1_763_805_600 * S  # 2025-11-22T10:00:00Z
decoder = JsonMessages(EPOCH_NS)


def decode(payload: bytes) -> Update:
    return decoder.decode(Raw(0, 0, payload))


def refused(payload: bytes) -> Undecodable:
    with pytest.raises(Undecodable) as caught:
        decode(payload)
    return caught.value


@pytest.mark.parametrize(
    ("payload", "update"),
    [
        ('{"path": "a", "value": 71.5}', Update(None, (("a", 71.5),))),
        ('{"path_id": "a", "value": "x"}', Update(None, (("a", "x"),))),
        ('{"param_path": "a", "param_value": [1, {"b": null}]}', Update(None, (("a", [1, {"b": None}]),))),
        ('{"path": "a", "value": null}', Update(None, (("a", None),))),
        ('{"path": "a", "value": null, "param_value": 5}', Update(None, (("a", None),))),
        ('{"path": "a", "path_id": "b", "value": 1, "more": {}}', Update(None, (("a", 1),))),
        ('{"set": {"a": 2, "b": 4}}', Update(None, (("a", 2), ("b", 4)))),
        ('{"set": {"a": 2}, "path": "b", "value": 1}', Update(None, (("a", 2),))),
        ('{"path": "a", "value": 1, "id": "a7", "cause": "c"}', Update(None, (("a", 1),), "a7", "c")),
        ('{"path": "a", "value": 1, "id": 7, "time": null}', Update(None, (("a", 1),), "7")),
        ('{"path": "a", "value": 1, "value": 2}', Update(None, (("a", 2),))),
        ('{"path": "a", "value": 18446744073709551616}', Update(None, (("a", 2**64),))),
        ('{"path": ["x"], "value": 1}', Update(None, ((["x"], 1),))),
    ],
)
def test_what_a_message_says(payload: str, update: Update) -> None:
    """The last of equal keys counts; the first of several names; types are the rule's affair."""
    assert decode(payload.encode()) == update


@pytest.mark.parametrize(
    ("time", "s"),
    [
        ("2025-11-22T10:00:00Z", 0.0),
        ("2025-11-22T11:00:01.5+01:00", 1.5),
        ("2025-11-22 10:00:00", 0.0),
        ("2025-11-22T09:59:59Z", -1.0),
        ("1763805602", 2.0),
        (1763805602, 2.0),
        (1763805602.25, 2.25),
        (-1, -1763805601.0),
    ],
)
def test_the_forms_of_time(time: Any, s: float) -> None:
    """ISO 8601, UTC without a zone, or Unix seconds; in ticks of the twin."""
    assert decode(json.dumps({"path": "a", "value": 1, "time": time}).encode()).tick == round(s * S)


@pytest.mark.parametrize(
    ("payload", "short"),
    [
        (b"", "json"),
        (b"\xff", "json"),
        (b'{"path":"a","value":"\xff"}', "json"),
        (b'{"path":"a","value":1}x', "json"),
        (b'{"path":"a","value":NaN}', "json"),
        (b'{"path":"a","value":Infinity}', "json"),
        (b'{"path":"a","value":1e400}', "json"),
        (b'{"path":"a","value":' + b"9" * 5_000 + b"}", "json"),
        (b'{"path":"a","value":"\\ud800"}', "json"),
        (b'{"path":"a","value":' + b"[" * 10_000 + b"]" * 10_000 + b"}", "json"),
        (b"[" * 10_000, "json"),
        (b"[]", "shape"),
        (b"null", "shape"),
        (b'"path"', "shape"),
        (b"{}", "shape"),
        (b'{"value":1}', "shape"),
        (b'{"path":"a"}', "shape"),
        (b'{"set":{}}', "shape"),
        (b'{"set":[["a",1]]}', "shape"),
        (b'{"path":"a","value":1,"time":"now"}', "time"),
        (b'{"path":"a","value":1,"time":""}', "time"),
        (b'{"path":"a","value":1,"time":true}', "time"),
        (b'{"path":"a","value":1,"time":[1]}', "time"),
        (b'{"path":"a","value":1,"time":"0001-01-01T00:00:00Z"}', "time"),
        (b'{"path":"a","value":1,"id":""}', "id"),
        (b'{"path":"a","value":1,"id":true}', "id"),
        (b'{"path":"a","value":1,"id":1.5}', "id"),
        (b'{"path":"a","value":1,"id":"a\\nb"}', "id"),
        (b'{"path":"a","value":1,"id":{}}', "id"),
        (b'{"path":"a","value":1,"cause":[]}', "cause"),
        (json.dumps({"path": "a", "value": 1, "id": "x" * (ID_BYTES_MAX + 1)}).encode(), "id"),
        (json.dumps({"path": "a", "value": 1, "id": "é" * 128}).encode(), "id"),
    ],
)
def test_what_cannot_be_read_names_the_rule_by_which_it_is_counted(payload: bytes, short: str) -> None:
    """And says what to do in a sentence of bounded length."""
    error = refused(payload)
    assert error.short == short
    assert len(str(error)) < 1_000


def test_a_message_that_is_too_long_is_not_looked_at() -> None:
    """By its length, or by what its source says."""
    good = b'{"path":"a","value":1}'
    assert refused(b" " * MESSAGE_BYTES_MAX + good).short == "size"
    with pytest.raises(Undecodable) as caught:
        decoder.decode(Raw(0, 0, good, sha256=bytes(32)))
    assert caught.value.short == "size"
    assert decode(b" " * (MESSAGE_BYTES_MAX - len(good)) + good).changes == (("a", 1),)


def test_a_map_takes_the_fields_of_a_flat_object() -> None:
    """In the order of the map; path and set are fields like any other then."""
    mapped = JsonMessages(0, map={"temp": "line.t", "mode": "line.m"})
    raw = Raw(0, 0, b'{"mode": "auto", "temp": 7, "path": "x", "value": 1, "set": {"y": 1}, "time": 3, "id": 4}')
    assert mapped.decode(raw) == Update(3 * S, (("line.t", 7), ("line.m", "auto")), "4")
    with pytest.raises(Undecodable, match="none of the mapped fields temp, mode"):
        mapped.decode(Raw(0, 0, b'{"path": "x", "value": 1}'))
    assert mapped.columns([raw.payload]) is None


def test_what_parses_bytes_can_be_chosen() -> None:
    """Any function to a mapping; the rules are the same."""
    own = JsonMessages(0, parse=lambda data: dict([data.decode().split("=")]) | {"path": "p"})
    assert own.decode(Raw(0, 0, b"value=7")) == Update(None, (("p", "7"),))
    assert own.columns([b"value=7"]) is None


# ---------------------------------------------------------------------------- anything


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=4,
)
names = st.sampled_from(["path", "path_id", "param_path", "value", "param_value", "set", "time", "id", "cause", "x"])
objects = st.dictionaries(names, json_values | st.sampled_from(["a", "b", 5, 2**64, 1e300, {"a": 1, "b": 2.0}]))
hostile = st.one_of(
    st.binary(max_size=60),
    objects.map(lambda value: json.dumps(value).encode()),
    objects.map(lambda value: json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")),
    st.tuples(objects.map(lambda value: json.dumps(value).encode()), st.integers(0, 60), st.binary(max_size=3)).map(
        lambda parts: parts[0][: parts[1]] + parts[2] + parts[0][parts[1] :]
    ),
)


@given(payload=hostile)
@example(payload=b'{"path":"a","value":1,"time":1e300}')
@example(payload=b'{"path":"a","value":1,"time":' + b"9" * 300 + b"}")
def test_hostile_bytes_raise_nothing_but_undecodable(payload: bytes) -> None:
    """And what is read can be named and compared."""
    update = None
    try:
        update = decode(payload)
    except Undecodable as error:
        short = error.short
    if update is None:
        assert short in ("json", "shape", "time", "id", "cause")
        return
    assert update.changes
    assert len(update.id.encode()) <= ID_BYTES_MAX
    assert update.tick is None or type(update.tick) is int


@given(payloads=st.lists(hostile | st.just(b'{"path":"a","value":5,"time":1763805602}'), min_size=1, max_size=3))
def test_many_at_once_say_what_each_says_alone(payloads: list[bytes]) -> None:
    """Where the columns are given at all, they are those of the messages one by one."""
    columns = decoder.columns(payloads)
    if columns is None:
        return
    paths, values, ticks = columns
    for n, payload in enumerate(payloads):
        update = decode(payload)
        assert update.changes == ((paths[n], values[n]),)
        assert update.tick == (None if ticks is None else ticks[n])
        assert update.id == update.cause == ""


def test_plain_messages_are_read_many_at_once() -> None:
    """With a time or without, not both in one batch; not with ids."""
    plain = [b'{"path":"a","value":1}', b'{"param_path":"b","param_value":2.5}']
    assert decoder.columns(plain) == (["a", "b"], [1, 2.5], None)
    timed = [b'{"path":"a","value":1,"time":1763805600}', b'{"path_id":"a","value":2,"time":"2025-11-22T10:00:01Z"}']
    assert decoder.columns(timed) == (["a", "a"], [1, 2], [0, S])
    assert decoder.columns([*plain, *timed]) is None
    for other in (b'{"path":"a","value":1,"id":"x"}', b'{"set":{"a":1}}', b"[", b'{"path":"a"}', b'{"value":1}'):
        assert decoder.columns([*plain, other]) is None


# ---------------------------------------------------------------------------- together with the gate


def gate(time: str = "arrival") -> Driver:
    driver = Driver()
    driver.gate.sources.register("x", Policy(time=time, wait=False, late="clamp"))
    driver.handle(Connected("x", decoder, EPOCH_NS))
    return driver


@pytest.mark.parametrize(
    ("payload", "rule"),
    [
        (b'{"path":"a","value":18446744073709551616}', "value"),
        (b'{"path":"any","value":18446744073709551616}', "value"),
        (b'{"path":"any","value":[18446744073709551616]}', "value"),
        (b'{"path":"nowhere","value":1}', "value"),
        (b'{"path":["x"],"value":1}', "path"),
        (b'{"path":{"x":1},"value":1}', "path"),
        (b'{"path":null,"value":1}', "path"),
        (b'{"set":{"a":1,"nowhere":1}}', "value"),
        (b'{"path":"a","value":1,"time":1e300}', "time"),
        (b'{"path":"any","value":' + b"[" * 100 + b"]" * 100 + b"}", "value"),
        (b'{"path":"any","value":' + b"[" * 900 + b"]" * 900 + b"}", "value"),
        (b'{"path":"a","value":' + b"[" * 900 + b"]" * 900 + b"}", "value"),
        (b'{"path":' + b"[" * 900 + b"]" * 900 + b',"value":1}', "path"),
    ],
)
def test_what_the_decoder_lets_pass_is_refused_by_the_rules(payload: bytes, rule: str) -> None:
    """Each becomes a dead letter, alone and between good ones, which are admitted."""
    good = b'{"path":"a","value":5,"time":1763805601}'
    for payloads in ([payload], [good, payload, good]):
        driver = gate("payload")
        raws = [Raw(0, n, data) for n, data in enumerate(payloads)]
        (append,) = driver.arrive("x", *raws)
        assert [letter.rule for letter in append.letters] == [rule]
        assert len(append.inputs) == len(payloads) - 1


@given(batches=st.lists(st.lists(hostile, max_size=3), max_size=2), time=st.sampled_from(["arrival", "payload"]))
def test_a_gate_of_hostile_messages_goes_on(batches: list[list[bytes]], time: str) -> None:
    """Each is an input, a dead letter or a duplicate: none stops the run."""
    driver = gate(time)
    offset = 0
    for payloads in batches:
        driver.reads.pop("x", None)
        raws = [Raw(0, offset + n, payload) for n, payload in enumerate(payloads)]
        offset += len(raws)
        driver.handle(Arrived("x", raws, 0.0, 3))
        driver.commit()
    counts = driver.gate.sources.counts()
    assert counts["inputs"] + counts["dead_letters"] + counts["duplicates"] == offset
    driver.ask()
    assert len(driver.granted) == counts["inputs"]
