"""Kafka over TLS and with SASL: every way in reads and writes; who is refused learns where and why, and no secret is shown."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import kafka_driver as kafka
import pytest

import tidewarp as tw
from tidewarp.clocks import WallClock
from tidewarp.connect import sinks, sources
from tidewarp.connect.backends.kafka_client import Cluster
from tidewarp.connect.contract import Raw
from tidewarp.errors import OperatorError, TidewarpError
from tidewarp.testing.servers.certificates import Certificates, make_certificates
from tidewarp.testing.servers.kafka import PASSWORD, USER, KafkaServer
from tidewarp.testing.sinks import RUN, outputs
from tidewarp.testing.suites import perform

CANARY = "canary-4f11"
CLOSED = "127.0.0.1:1"
LOGIN = {"sasl.username": USER, "sasl.password": PASSWORD}


def token(_: str = "") -> tuple[str, float]:
    """What the broker's validator of unsigned tokens takes, for ten minutes."""
    now_s = WallClock().unix_ns() / 1e9
    parts = [{"alg": "none"}, {"sub": "twin", "iat": now_s, "exp": now_s + 600}]
    written = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in parts]
    return ".".join([*written, ""]), now_s + 600


def refused_token(_: str = "") -> tuple[str, float]:
    return f"{CANARY}.{CANARY}.", token()[1]


def sasl(mechanism: str, **more: Any) -> dict[str, Any]:
    login = {"oauth_cb": token} if mechanism == "OAUTHBEARER" else LOGIN
    return {"security.protocol": "SASL_PLAINTEXT", "sasl.mechanisms": mechanism, **login, **more}


@pytest.fixture(scope="module")
def certificates(require: Callable[[str], None], tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    require("openssl")
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def tls_broker(
    require: Callable[[str], None], certificates: Certificates, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[KafkaServer]:
    require("kafka")
    with KafkaServer(tmp_path_factory.mktemp("kafka"), certificates=certificates) as server:
        yield server


def trusting(certificates: Certificates, **more: Any) -> dict[str, Any]:
    return {"security.protocol": "SSL", "ssl.ca.location": str(certificates.authority), **more}


def known(certificates: Certificates) -> dict[str, Any]:
    own = str(certificates.client)
    return trusting(certificates, **{"ssl.certificate.location": own, "ssl.key.location": own})


def both_ways(server: KafkaServer, bootstrap: str, config: Mapping[str, Any]) -> None:
    """What the sink writes the source reads, on the same way in."""
    topic = kafka.new_topic(server)
    sink = sinks.kafka(bootstrap, event_topic=topic, telemetry_topic=topic, config=config, name=topic)
    source = sources.kafka(topic, bootstrap_servers=bootstrap, group_id=topic, config={**kafka.QUICK, **config})

    async def life() -> list[Raw]:
        assert await sink.open(RUN) == ""
        assert await sink.write(outputs(0, 3)) == []
        await sink.close()
        raws: list[Raw] = []
        await source.open({})
        while len(raws) < 3:
            raws += await source.read(3 - len(raws))
        await source.close()
        return raws

    raws = perform(life())
    assert [json.loads(raw.payload)["id"] for raw in raws] == [output.id for output in outputs(0, 3)]


def refusal(bootstrap: str, config: Mapping[str, Any]) -> str:
    """What source and sink say when they are opened: OperatorErrors that show no secret. Both texts."""
    told = []
    for connector in (
        sources.kafka("a", bootstrap_servers=bootstrap, group_id="g", config=config),
        sinks.kafka(bootstrap, config=config),
    ):

        async def life(connector: Any = connector) -> None:
            try:
                await connector.open({} if hasattr(connector, "read") else RUN)
            finally:
                await connector.close()

        with pytest.raises(OperatorError) as caught:
            perform(life())
        assert bootstrap in str(caught.value)
        shown = f"{caught.value} {caught.value.__cause__} {connector!r} {getattr(connector, 'describe', dict)()}"
        assert not [secret for secret in (CANARY, PASSWORD) if secret in shown]
        told.append(str(caught.value))
    return "\n".join(told)


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "OAUTHBEARER"])
def test_a_mechanism_of_sasl_opens_the_listener(kafka_broker: KafkaServer, mechanism: str) -> None:
    """For source and sink, with a user's callback for the token."""
    both_ways(kafka_broker, kafka_broker.sasl_bootstrap, sasl(mechanism))


def test_sasl_goes_over_tls(tls_broker: KafkaServer, certificates: Certificates) -> None:
    """The broker is known by its authority."""
    config = {**trusting(certificates), **sasl("SCRAM-SHA-256"), "security.protocol": "SASL_SSL"}
    both_ways(tls_broker, tls_broker.sasl_bootstrap, config)


def test_a_client_is_known_by_its_certificate(tls_broker: KafkaServer, certificates: Certificates) -> None:
    """TLS on both sides."""
    both_ways(tls_broker, tls_broker.tls_bootstrap, known(certificates))


@pytest.mark.parametrize(
    ("mechanism", "wrong", "said"),
    [
        ("PLAIN", {"sasl.password": CANARY}, "Invalid username or password"),
        ("SCRAM-SHA-256", {"sasl.password": CANARY}, "invalid credentials with SASL mechanism SCRAM-SHA-256"),
        ("SCRAM-SHA-512", {"sasl.password": CANARY}, "SCRAM-SHA-512"),
        ("OAUTHBEARER", {"oauth_cb": refused_token}, "OAUTHBEARER"),
    ],
)
def test_wrong_credentials_say_where_and_by_which_mechanism(
    kafka_broker: KafkaServer, mechanism: str, wrong: Mapping[str, Any], said: str
) -> None:
    """No retry mends them."""
    told = refusal(kafka_broker.sasl_bootstrap, sasl(mechanism, **wrong))
    assert told.count(said) >= 2
    assert told.count(mechanism) >= 2


def test_an_unknown_authority_is_no_outage(tls_broker: KafkaServer, certificates: Certificates, tmp_path: Path) -> None:
    """A broker with somebody else's certificate is not talked to, and not waited for."""
    other = make_certificates(tmp_path)
    config = {**trusting(other), **sasl("PLAIN"), "security.protocol": "SASL_SSL"}
    assert refusal(tls_broker.sasl_bootstrap, config).count("verify failed") == 2


def test_a_client_without_a_certificate_is_no_outage(tls_broker: KafkaServer, certificates: Certificates) -> None:
    """The listener that asks for one refuses it for good."""
    assert refusal(tls_broker.tls_bootstrap, trusting(certificates)).count("certificate") >= 2


def test_a_run_with_a_wrong_password_ends_and_its_journal_has_no_secret(
    kafka_broker: KafkaServer, tmp_path: Path
) -> None:
    """The error of the run is the source's: host, mechanism, what to do."""
    topic = kafka.new_topic(kafka_broker)
    config = sasl("SCRAM-SHA-256", **{"sasl.password": CANARY})

    def build(twin: tw.Twin) -> None:
        twin.variable("a", float)
        twin.connect(
            tw.sources.kafka(topic, bootstrap_servers=kafka_broker.sasl_bootstrap, group_id="g", config=config)
        )

    with tw.open(tmp_path / "a.tw", build) as twin, pytest.raises(TidewarpError) as caught:
        twin.run(until="1h")
    told = str(caught.value)
    assert kafka_broker.sasl_bootstrap in told
    assert "SCRAM-SHA-256" in told
    written = b"".join(file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())
    assert CANARY.encode() not in written + told.encode()


@pytest.mark.parametrize(("raised", "kind"), [(TimeoutError, ConnectionError), (ValueError, OperatorError)])
def test_a_callback_that_raises_is_heard(
    require: Callable[[str], None], raised: type[Exception], kind: type[Exception]
) -> None:
    """An OSError of it may pass, as where the tokens' server is away; any other ends the run. Its text may hold a secret."""
    require("kafka")

    def provider(_: str) -> Any:
        raise raised(CANARY)

    source = sources.kafka("a", bootstrap_servers=CLOSED, group_id="g", config=sasl("OAUTHBEARER", oauth_cb=provider))

    async def life() -> None:
        try:
            await source.open({})
        finally:
            await source.close()

    with pytest.raises(kind, match=rf"{CLOSED}: oauth_cb raised {raised.__name__}") as caught:
        perform(life())
    assert CANARY not in f"{caught.value} {caught.value.__cause__}"


@pytest.mark.parametrize(("raised", "kind"), [(TimeoutError, ConnectionError), (ValueError, OperatorError)])
def test_a_callback_that_raises_later_is_heard_too(
    kafka_broker: KafkaServer, raised: type[Exception], kind: type[Exception]
) -> None:
    """When the token is renewed, while the source waits for messages."""
    topic = kafka.new_topic(kafka_broker)
    asked: list[str] = []

    def provider(config: str) -> Any:
        asked.append(config)
        if len(asked) > 1:
            raise raised(CANARY)
        return token()[0], WallClock().unix_ns() / 1e9 + 1.0

    config = {**kafka.QUICK, **sasl("OAUTHBEARER", oauth_cb=provider)}
    source = sources.kafka(topic, bootstrap_servers=kafka_broker.sasl_bootstrap, group_id=topic, config=config)

    async def life() -> None:
        try:
            await source.open({})
            await source.read(1)
        finally:
            await source.close()

    with pytest.raises(kind, match=f"oauth_cb raised {raised.__name__}"):
        perform(life())
    assert len(asked) >= 2


@pytest.mark.nightly  # the driver waits ten seconds for a better one
def test_a_token_that_has_expired_is_refused(require: Callable[[str], None]) -> None:
    """The driver then raises what is no exception: it must not end the connector's thread unheard."""
    require("kafka")
    expired = sasl("OAUTHBEARER", oauth_cb=lambda _: (token()[0], WallClock().unix_ns() / 1e9 - 60))
    assert refusal(CLOSED, expired).count("OAuth token not set") == 2


def test_a_user_name_is_masked_as_a_word_and_a_password_anywhere() -> None:
    """A user "u" must not make "a***thentication" of what the broker says."""
    pytest.importorskip("confluent_kafka")
    cluster = Cluster("x", "localhost:1", {"sasl.username": "u", "sasl.password": "pass"})
    assert cluster.redacted("authentication of 'u' by mypassword") == "authentication of '***' by my***word"
    assert Cluster("x", "localhost:1", {}).redacted("as it is") == "as it is"
