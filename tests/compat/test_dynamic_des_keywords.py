"""Keywords of the published client libraries: translated, ignored with a warning, or refused with the nearest name."""

from __future__ import annotations

import pytest

from tidewarp.compat.dynamic_des import KafkaAdminConnector, KafkaEgress, KafkaIngress, PostgresEgress, RedisIngress
from tidewarp.compat.dynamic_des.connectors.keywords import kafka_config, postgres_dsn, redis_url
from tidewarp.errors import OperatorError


def test_keywords_of_kafka_clients():
    """All that the specification names."""
    given = {
        "security_protocol": "SASL_SSL",
        "sasl_mechanism": "SCRAM-SHA-512",
        "sasl_plain_username": "u",
        "sasl_plain_password": "p",
        "ssl_cafile": "ca.pem",
        "ssl_certfile": "c.pem",
        "ssl_keyfile": "k.pem",
        "ssl_password": "s",
        "ssl_check_hostname": False,
        "group_id": "g",
        "auto_offset_reset": "earliest",
        "client_id": "c",
        "compression_type": None,
        "linger_ms": 5,
        "max_batch_size": 9,
        "acks": "all",
        "session_timeout_ms": 6000,
        "heartbeat_interval_ms": 500,
        "request_timeout_ms": 7000,
    }
    assert kafka_config("x", given) == {
        "security.protocol": "sasl_ssl",
        "sasl.mechanism": "SCRAM-SHA-512",
        "sasl.username": "u",
        "sasl.password": "p",
        "ssl.ca.location": "ca.pem",
        "ssl.certificate.location": "c.pem",
        "ssl.key.location": "k.pem",
        "ssl.key.password": "s",
        "ssl.endpoint.identification.algorithm": "none",
        "group.id": "g",
        "auto.offset.reset": "earliest",
        "client.id": "c",
        "compression.type": "none",
        "linger.ms": 5,
        "batch.size": 9,
        "acks": "all",
        "session.timeout.ms": 6000,
        "heartbeat.interval.ms": 500,
        "socket.timeout.ms": 7000,
    }


def test_a_token_provider_becomes_a_callback():
    """Of a plain method, and of a coroutine, as aiokafka has it; with the end of the token in Unix seconds."""

    class Plain:
        def token(self):
            return "a"

    class Async:
        async def token(self):
            return "b"

    for provider, token in ((Plain(), "a"), (Async(), "b")):
        made, ends_s = kafka_config("x", {"sasl_oauth_token_provider": provider})["oauth_cb"]("config")
        assert made == token
        assert ends_s > 1_700_000_000


def test_what_the_journal_decides_is_ignored_with_one_warning(caplog):
    """Offsets live there."""
    KafkaIngress("t", "localhost:1", enable_auto_commit=True)
    assert [record.message for record in caplog.records] == [
        "KafkaIngress: enable_auto_commit is ignored: offsets live in the journal"
    ]


@pytest.mark.parametrize(
    ("make", "near"),
    [
        (lambda: KafkaIngress("t", "localhost:1", group="g"), "group_id"),
        (lambda: KafkaEgress("localhost:1", linger=5), "linger_ms"),
        (lambda: KafkaAdminConnector("localhost:1", sasl_plain_pasword="canary"), "sasl_plain_password"),
        (lambda: PostgresEgress("postgresql://localhost", pasword="canary"), "password"),
        (lambda: RedisIngress("redis://localhost", sockettimeout=1), "socket_timeout"),
    ],
)
def test_an_unknown_keyword_names_the_nearest(make, near):
    """And shows no value: it may be a secret."""
    with pytest.raises(OperatorError, match=f"did you mean {near}\\?") as caught:
        make()
    assert "canary" not in str(caught.value)


def test_keywords_of_redis():
    """They become parts of the URL; what the URL says already stays."""
    url = redis_url("x", "redis://h:1/2?socket_timeout=3", {"password": "p@:/", "health_check_interval": 5})
    assert url == "redis://:p%40%3A%2F@h:1/2?socket_timeout=3&health_check_interval=5"
    assert redis_url("x", "redis://u:p@h", {"decode_responses": True}) == "redis://u:p@h"
    assert redis_url("x", "redis://u:p@h", {"username": "v"}) == "redis://v:p@h"


@pytest.mark.parametrize("dsn", ["postgresql://h:5/d?application_name=a", "host=h port=5 dbname=d application_name=a"])
def test_keywords_of_postgres(dsn):
    """They become parts of the DSN, as psycopg reads it."""
    conninfo = pytest.importorskip("psycopg.conninfo", reason="pip install 'tidewarp[postgres]'")
    given = {"user": "u", "password": r"p'\ &=", "ssl": True, "timeout": 2.4, "min_size": 3}
    read = conninfo.conninfo_to_dict(postgres_dsn("x", dsn, given))
    assert read == {
        "host": "h",
        "port": "5",
        "dbname": "d",
        "application_name": "a",
        "user": "u",
        "password": r"p'\ &=",
        "sslmode": "require",
        "connect_timeout": 2,
    } | ({"connect_timeout": read["connect_timeout"], "port": read["port"]})
    assert (int(read["connect_timeout"]), int(read["port"])) == (2, 5)
