"""Keywords of the published client libraries, in the words of ours."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import Any, Final
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

from tidewarp.clocks import WallClock
from tidewarp.errors import OperatorError

__all__ = ["kafka_config", "postgres_dsn", "redis_url"]

_log = logging.getLogger(__name__)
_TOKEN_S: Final = 300.0  # after which a provider is asked again: it does not say how long its token lives

_KAFKA: Final = {
    "acks": "acks",
    "auto_offset_reset": "auto.offset.reset",
    "client_id": "client.id",
    "compression_type": "compression.type",
    "connections_max_idle_ms": "connections.max.idle.ms",
    "fetch_max_bytes": "fetch.max.bytes",
    "fetch_max_wait_ms": "fetch.wait.max.ms",
    "fetch_min_bytes": "fetch.min.bytes",
    "group_id": "group.id",
    "heartbeat_interval_ms": "heartbeat.interval.ms",
    "linger_ms": "linger.ms",
    "max_batch_size": "batch.size",
    "max_partition_fetch_bytes": "max.partition.fetch.bytes",
    "max_poll_interval_ms": "max.poll.interval.ms",
    "max_request_size": "message.max.bytes",
    "metadata_max_age_ms": "metadata.max.age.ms",
    "request_timeout_ms": "socket.timeout.ms",
    "retry_backoff_ms": "retry.backoff.ms",
    "sasl_kerberos_service_name": "sasl.kerberos.service.name",
    "sasl_mechanism": "sasl.mechanism",
    "sasl_oauth_token_provider": "oauth_cb",
    "sasl_plain_password": "sasl.password",
    "sasl_plain_username": "sasl.username",
    "security_protocol": "security.protocol",
    "session_timeout_ms": "session.timeout.ms",
    "ssl_cafile": "ssl.ca.location",
    "ssl_certfile": "ssl.certificate.location",
    "ssl_check_hostname": "ssl.endpoint.identification.algorithm",
    "ssl_keyfile": "ssl.key.location",
    "ssl_password": "ssl.key.password",
}
_KAFKA_IGNORED: Final = {
    "auto_commit_interval_ms": "offsets live in the journal",
    "enable_auto_commit": "offsets live in the journal",
    "enable_idempotence": "it is always on",
}
_POSTGRES: Final = {
    "database": "dbname",
    "host": "host",
    "password": "password",
    "passfile": "passfile",
    "port": "port",
    "ssl": "sslmode",
    "timeout": "connect_timeout",
    "user": "user",
}
_POSTGRES_IGNORED: Final = dict.fromkeys(
    ("command_timeout", "max_inactive_connection_lifetime", "max_queries", "max_size", "min_size"),
    "a connector has one connection",
)
_REDIS_USER: Final = ("username", "password")
_REDIS: Final = dict.fromkeys(
    (
        "client_name",
        "db",
        "health_check_interval",
        "socket_connect_timeout",
        "socket_keepalive",
        "socket_timeout",
        "ssl_ca_certs",
        "ssl_cert_reqs",
        "ssl_certfile",
        "ssl_check_hostname",
        "ssl_keyfile",
    ),
    "",
)
_REDIS_IGNORED: Final = dict.fromkeys(
    ("decode_responses", "encoding", "max_connections", "retry", "retry_on_error", "retry_on_timeout"),
    "the connector decides this",
)


def _checked(what: str, given: Mapping[str, Any], known: Mapping[str, Any], ignored: Mapping[str, str]) -> list[str]:
    """The names that are known. Warns of each that is ignored; OperatorError for one that is neither."""
    for name in given:
        if name in ignored:
            _log.warning("%s: %s is ignored: %s", what, name, ignored[name])
        elif name not in known:
            near = get_close_matches(str(name), [*known, *ignored], n=1, cutoff=0)
            raise OperatorError(f"{what}: keyword {name!r:.80}", "it is not known", f"did you mean {near[0]}?")
    return [name for name in given if name in known]


def kafka_config(what: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of librdkafka of the keywords of aiokafka and kafka-python.

    Raises:
        OperatorError: a keyword that is neither known nor ignored; the nearest one is named.
    """
    translate: dict[str, Callable[[Any], Any]] = {
        "sasl_oauth_token_provider": _token_callback,
        "security_protocol": lambda value: str(value).lower(),
        "ssl_check_hostname": lambda value: "https" if value else "none",
        "compression_type": lambda value: value or "none",
    }
    names = _checked(what, given, _KAFKA, _KAFKA_IGNORED)
    return {
        _KAFKA[name]: translate.get(name, lambda value: value)(given[name])
        for name in names
        if given[name] is not None or name == "compression_type"
    }


def _token_callback(provider: Any) -> Callable[[str], tuple[str, float]]:
    """What librdkafka calls for a token, with its end in Unix seconds. A provider's ``token()`` may be a coroutine."""

    def token(_: str) -> tuple[str, float]:
        made = provider.token()
        if inspect.isawaitable(made):

            async def awaited() -> Any:
                return await made

            made = asyncio.run(awaited())
        return str(made), WallClock().unix_ns() / 1e9 + _TOKEN_S

    return token


def redis_url(what: str, url: str, given: Mapping[str, Any]) -> str:
    """``url`` with the keywords of redis-py in it. Raises OperatorError as :func:`kafka_config`."""
    names = _checked(what, given, {**_REDIS, **dict.fromkeys(_REDIS_USER)}, _REDIS_IGNORED)
    parts = urlsplit(url)
    place = parts.netloc.rpartition("@")[2]
    user, password = parts.username or "", parts.password or ""
    user = quote(str(given.get("username") or ""), safe="") or user
    password = quote(str(given.get("password") or ""), safe="") or password
    netloc = f"{user}:{password}@{place}" if user or password else place
    options = [(name, given[name]) for name in names if name not in _REDIS_USER and given[name] is not None]
    query = urlencode([*parse_qsl(parts.query, keep_blank_values=True), *options])
    return urlunsplit((parts.scheme, netloc, parts.path, query, parts.fragment))


def postgres_dsn(what: str, dsn: str, given: Mapping[str, Any]) -> str:
    """``dsn`` with the keywords of asyncpg in it. Raises OperatorError as :func:`kafka_config`."""
    names = _checked(what, given, _POSTGRES, _POSTGRES_IGNORED)
    options = [(_POSTGRES[name], _postgres_value(name, given[name])) for name in names if given[name] is not None]
    if not options:
        return dsn
    if "://" in dsn:
        parts = urlsplit(dsn)
        return urlunsplit(
            parts._replace(query="&".join(filter(None, [parts.query, urlencode(options, quote_via=quote)])))
        )
    quoted = [f"{name}='{value}'" for name, value in ((n, _escaped(v)) for n, v in options)]
    return " ".join([dsn, *quoted])


def _postgres_value(name: str, value: Any) -> str:
    if name == "ssl" and isinstance(value, bool):
        return "require" if value else "disable"
    return str(max(1, round(value))) if name == "timeout" else str(value)


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace("'", "\\'")
