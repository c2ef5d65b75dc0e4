"""A password that a connector is given is shown nowhere, also where nobody answers: every connector with credentials."""

from __future__ import annotations

import logging
import socket
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tidewarp.codec import pack
from tidewarp.connect import sinks, sources
from tidewarp.errors import OperatorError
from tidewarp.testing.sinks import RUN
from tidewarp.testing.suites import perform

CANARY = "c4n/ry+ p@ss"  # needs escapes in a URL, and is no word in a pattern
QUOTED = "c4n%2Fry+%20p%40ss"


@pytest.fixture
def port() -> Iterator[int]:
    """One that nobody listens on, for as long as the test has it."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield int(held.getsockname()[1])


def nats_url(port: int) -> str:
    return f"nats://canary:{QUOTED}@127.0.0.1:{port}"


MAKERS: dict[str, tuple[str, Callable[[int], Any]]] = {
    "redis_stream source": (
        "redis",
        lambda port: sources.redis_stream(f"redis://canary:{QUOTED}@127.0.0.1:{port}/0", "s", group="g"),
    ),
    "redis_pubsub source": ("redis", lambda port: sources.redis_pubsub(f"redis://:{QUOTED}@127.0.0.1:{port}/0", "c")),
    "redis_stream sink": ("redis", lambda port: sinks.redis_stream(f"redis://canary:{QUOTED}@127.0.0.1:{port}/0")),
    "postgres source": ("psycopg", lambda port: sources.postgres(f"postgresql://canary:{QUOTED}@127.0.0.1:{port}/db")),
    "postgres sink": (
        "psycopg",
        lambda port: sinks.postgres(f"host=127.0.0.1 port={port} user=canary password='{CANARY}'"),
    ),
    "nats source": ("nats", lambda port: sources.nats(nats_url(port), "S", durable="d")),
    "nats sink": ("nats", lambda port: sinks.nats(nats_url(port), "s", stream="S")),
    "mqtt source": (
        "paho.mqtt",
        lambda port: sources.mqtt("127.0.0.1", port, "t", username="canary", password=CANARY),
    ),
    "mqtt sink": ("paho.mqtt", lambda port: sinks.mqtt("127.0.0.1", port, "t", username="canary", password=CANARY)),
}


@pytest.mark.parametrize("kind", MAKERS)
def test_a_password_is_shown_nowhere(kind: str, port: int, caplog: pytest.LogCaptureFixture) -> None:
    """Not in what it says of itself, nor in the error, the errors behind that, or the log: with all of which people ask for help."""
    package, make = MAKERS[kind]
    pytest.importorskip(package, reason="pip install 'tidewarp[redis,postgres,nats,mqtt]'")
    connector = make(port)

    async def life() -> None:
        try:
            await connector.open({} if kind.endswith("source") else RUN)
        finally:
            await connector.close()

    with caplog.at_level(logging.DEBUG), pytest.raises((OSError, OperatorError)) as raised:
        perform(life())
    said = [repr(connector), caplog.text, *traceback.format_exception(raised.value)]
    if kind.endswith("source"):
        said.append(repr(pack(connector.describe())))
    whole = "".join(said)
    assert str(port) in str(raised.value) or kind.startswith("postgres"), "it says where nobody answered"
    assert not [one for one in (CANARY, QUOTED, "c4n") if one in whole]
