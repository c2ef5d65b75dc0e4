"""MQTT over TLS: source and sink know the broker by its authority, and it knows them by their certificates."""

from __future__ import annotations

import gc
import json
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tidewarp.connect.backends.mqtt import MqttSource
from tidewarp.connect.backends.mqtt_sink import MqttSink
from tidewarp.connect.contract import Raw
from tidewarp.errors import OperatorError
from tidewarp.testing.servers.base import HOST
from tidewarp.testing.servers.certificates import Certificates, make_certificates
from tidewarp.testing.servers.mosquitto import MosquittoServer
from tidewarp.testing.sinks import RUN, outputs
from tidewarp.testing.suites import perform

CANARY = "canary-90cd"
LOGIN = {"username": "twin", "password": "right"}


@pytest.fixture(scope="module")
def certificates(require: Callable[[str], None], tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    require("openssl")
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def server(
    require: Callable[[str], None], certificates: Certificates, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[MosquittoServer]:
    require("mosquitto")
    own = certificates.server
    settings = (f"cafile {certificates.authority}", f"certfile {own}", f"keyfile {own}", "require_certificate true")
    folder = tmp_path_factory.mktemp("mosquitto")
    with MosquittoServer(folder, user="twin", password="right", settings=settings) as one:
        yield one


def context(certificates: Certificates, *, own: bool = True) -> ssl.SSLContext:
    made = ssl.create_default_context(cafile=certificates.authority)
    if own:
        made.load_cert_chain(certificates.client)
    return made


def test_source_and_sink_go_over_tls(server: MosquittoServer, certificates: Certificates) -> None:
    """With certificates on both sides, user and password within."""
    options: dict[str, Any] = {**LOGIN, "tls": context(certificates)}
    source = MqttSource(HOST, server.port, "a", **options)
    sink = MqttSink(HOST, server.port, "a", **options)

    async def life() -> list[Raw]:
        await source.open({})
        await sink.open(RUN)
        assert await sink.write(outputs(0, 3)) == []
        raws: list[Raw] = []
        while len(raws) < 3:
            raws += await source.read(3)
        await source.confirm({0: raws[-1].offset})
        await source.close()
        await sink.close()
        return raws

    assert [json.loads(raw.payload)["id"] for raw in perform(life())] == [output.id for output in outputs(0, 3)]


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")  # paho leaves the socket of a failed handshake to Python
@pytest.mark.parametrize("kind", [MqttSource, MqttSink])
@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"password": CANARY}, "correct user, password, rights"),
        ({"tls": True}, "give tls= a context that trusts it"),
        ({"tls": "stranger"}, "give tls= a context that trusts it"),
    ],
    ids=["password", "default authorities", "another authority"],
)
def test_who_is_refused_learns_why(
    server: MosquittoServer, certificates: Certificates, tmp_path: Path, kind: Any, wrong: dict[str, Any], said: str
) -> None:
    """An OperatorError with the address, and no secret: no retry mends it."""
    options: dict[str, Any] = {**LOGIN, "tls": context(certificates), **wrong}
    if options["tls"] == "stranger":
        options["tls"] = context(make_certificates(tmp_path))
    one = kind(HOST, server.port, "a", **options)

    async def life() -> None:
        try:
            await one.open({} if kind is MqttSource else RUN)
        finally:
            await one.close()

    with pytest.raises(OperatorError, match=said) as caught:
        perform(life())
    assert f"{HOST}:{server.port}" in str(caught.value)
    assert CANARY not in f"{caught.value} {caught.value.__cause__} {one!r}"
    del caught
    gc.collect()


@pytest.mark.parametrize("kind", [MqttSource, MqttSink])
def test_a_client_without_a_certificate_is_told_what_broke_the_connection(
    server: MosquittoServer, certificates: Certificates, kind: Any
) -> None:
    """By TLS 1.3 the broker says so only when the connection stands, and may not get that far: it looks like an outage."""
    one = kind(HOST, server.port, "a", **LOGIN, tls=context(certificates, own=False))

    async def life() -> None:
        try:
            await one.open({} if kind is MqttSource else RUN)
        finally:
            await one.close()

    with pytest.raises(ConnectionError, match=r"certificate|EOF|reset|pipe|closed") as caught:
        perform(life())
    assert f"{HOST}:{server.port}" in str(caught.value)
