"""A Kafka cluster as source, sink and admin see it: clients, settings, what errors mean. The only importer of confluent-kafka.

Settings are librdkafka's (its CONFIGURATION page lists them). Its log lines go to the logger ``tidewarp.kafka``.
"""

from __future__ import annotations

import logging
import re
import struct
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from tidewarp.errors import MissingExtra, OperatorError, TidewarpError

__all__ = ["TOPIC_NAME", "Cluster"]

TOPIC_NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,249}")
"""What Kafka accepts as the name of a topic."""

_SECRET = re.compile(r"password|secret|token|\.pem$|oauthbearer\.config|sasl\.username|jaas", re.IGNORECASE)
# One side does not like the other's certificate: ours says so, or the alert of the broker (RFC 8446, section 6).
_CERTIFICATE = re.compile(r"certificate verify failed|SSL alert number (4[2-68]|116)\b")
_ASK_S, _ASKS = 0.5, 10  # how long one question waits for an answer, and how often it is asked
_CALLBACKS = 8
_SETTLE_S, _SETTLES = 0.1, 20  # a topic that was just made is not known everywhere at once
_SOCKET_MS = 5_000  # a broker that hangs must not hold the closing of a client for a minute

# What no retry mends. Names of KafkaError; all others may pass.
_OPERATOR = (
    "_AUTHENTICATION",
    "_INVALID_ARG",
    "_UNSUPPORTED_FEATURE",
    "_UNKNOWN_TOPIC",
    "_UNKNOWN_PARTITION",
    "SASL_AUTHENTICATION_FAILED",
    "UNSUPPORTED_SASL_MECHANISM",
    "TOPIC_AUTHORIZATION_FAILED",
    "GROUP_AUTHORIZATION_FAILED",
    "CLUSTER_AUTHORIZATION_FAILED",
    "TRANSACTIONAL_ID_AUTHORIZATION_FAILED",
    "TOPIC_EXCEPTION",
    "UNKNOWN_TOPIC_OR_PART",
    "UNSUPPORTED_VERSION",
    "INVALID_TRANSACTION_TIMEOUT",
    "INVALID_REPLICATION_FACTOR",
    "POLICY_VIOLATION",
)

_log = logging.getLogger("tidewarp.kafka")
_log.addHandler(logging.NullHandler())


class Cluster:
    """How to reach a cluster, and on whose behalf. ``what`` names the user in errors, as "kafka source 'config'".

    Args:
        what: the user.
        bootstrap_servers: ``host:port``, several with commas, or a list.
        config: librdkafka's settings. Values of passwords, tokens and the like are shown nowhere.
        kept: names of settings that the connector decides.
    """

    def __init__(
        self, what: str, bootstrap_servers: str | Sequence[str], config: Mapping[str, Any], kept: Iterable[str] = ()
    ) -> None:
        several = [bootstrap_servers] if isinstance(bootstrap_servers, str) else list(bootstrap_servers)
        self._servers = ",".join(several)
        if not self._servers:
            raise OperatorError(
                f"{what}: bootstrap_servers={bootstrap_servers!r}", "it names one broker", "give host:port"
            )
        taken = sorted({"bootstrap.servers", "error_cb", "logger", *kept} & config.keys())
        if taken:
            raise OperatorError(f"{what}: config {', '.join(taken)}", "the connector decides this", "leave it out")
        self._config = dict(config)
        self._mechanism = str(config.get("sasl.mechanisms", config.get("sasl.mechanism", "GSSAPI")))
        secrets = {key: re.escape(str(value)) for key, value in config.items() if _SECRET.search(key) and str(value)}
        words = (rf"(?<!\w){one}(?!\w)" if key == "sasl.username" else one for key, one in secrets.items())
        self._secret = re.compile("|".join(sorted(words, key=len, reverse=True)) or "(?!)")
        self.target = f"{what} at {self._servers}"
        self.failure: TidewarpError | OSError | None = None  # what a client told of beside its calls
        self._tokenless: OSError | OperatorError | None = None  # what oauth_cb raised

    def __repr__(self) -> str:
        return f"<{self.target}>"

    # ------------------------------------------------------------------ clients
    def driver(self) -> Any:
        """The package confluent_kafka. MissingExtra if it is not installed."""
        try:
            import confluent_kafka
            import confluent_kafka.admin
        except ImportError as error:
            raise MissingExtra(self.target, "it needs confluent-kafka", "pip install 'tidewarp[kafka]'") from error
        return confluent_kafka

    def consumer(self, fixed: Mapping[str, Any], usual: Mapping[str, Any] = {}) -> Any:
        """A new Consumer with the ``fixed`` settings; the user's take the place of the ``usual``."""
        return self._client(self.driver().Consumer, fixed, usual)

    def producer(self, fixed: Mapping[str, Any], usual: Mapping[str, Any] = {}) -> Any:
        """A new Producer, likewise."""
        return self._client(self.driver().Producer, fixed, usual)

    def admin(self) -> Any:
        """A new AdminClient."""
        return self._client(self.driver().admin.AdminClient, {}, {})

    def _client(self, make: Callable[[dict[str, Any]], Any], fixed: Mapping[str, Any], usual: Mapping[str, Any]) -> Any:
        self.failure = None
        ours = {"bootstrap.servers": self._servers, "error_cb": self._hear, "logger": _log}
        known = {"socket.timeout.ms": _SOCKET_MS, **usual, **self._config, **fixed, **ours}
        if "oauth_cb" in known:
            known["oauth_cb"] = self._tokens(known["oauth_cb"], str(known.get("sasl.oauthbearer.config", "")))
        try:
            return make(known)
        except (self.driver().KafkaException, TypeError, ValueError) as error:
            raise OperatorError(self.target, self.redacted(str(error)), "correct config=") from None
        except:  # noqa: E722 # a consumer that got no token raises a KafkaError, which is no exception at all (2.16)
            raised = sys.exc_info()[1]
            if isinstance(raised, BaseException):
                raise
            raise self.translated(raised) from None

    def _tokens(self, provider: Callable[[str], Any], config: str) -> Callable[[str], Any]:
        """The user's ``oauth_cb``, asked before the driver does: it would wait for ten seconds and drop what is raised."""
        first = [self._token(provider, config)]
        return lambda config: first.pop() if first else self._token(provider, config)

    def _token(self, provider: Callable[[str], Any], config: str) -> Any:
        try:
            return provider(config)
        except Exception as error:  # its text may hold a secret
            told = f"oauth_cb raised {type(error).__name__}"
            if isinstance(error, OSError):
                self._tokenless = ConnectionError(f"{self.target}: {told}")
            else:
                self._tokenless = OperatorError(self.target, told, "mend it; what may pass, it raises as an OSError")
            raise self._tokenless from None

    def _hear(self, error: Any) -> None:
        """What librdkafka tells beside its calls; it is called inside of a poll."""
        kinds = self.driver().KafkaError
        if self._tokenless is not None and error.code() == kinds._AUTHENTICATION:
            self.failure, self._tokenless = self._tokenless, None
            return
        failure = self.translated(error)
        lost = error.code() == kinds._ALL_BROKERS_DOWN
        if isinstance(failure, OperatorError) or ((lost or error.fatal()) and self.failure is None):
            self.failure = failure

    # ------------------------------------------------------------------ questions
    def reach(self, client: Any) -> None:
        """Wait until a broker answers. ConnectionError if none does in some seconds, OperatorError for bad credentials."""
        reason: Exception = ConnectionError(f"{self.target}: no answer")
        for _ in range(_ASKS):
            try:
                client.list_topics(timeout=_ASK_S)
            except self.driver().KafkaException as error:
                reason = self.translated(error.args[0])
                for _ in range(_CALLBACKS):  # in which it tells why it was refused
                    client.poll(0)
                if self.failure is not None:
                    raise self.failure from None
            else:
                self.failure = None
                return
        raise reason

    def partitions(self, client: Any, topic: str) -> list[int]:
        """The partitions of a topic, ascending. OperatorError if there is no such topic."""
        problem: Any = None
        for _ in range(_SETTLES):
            try:
                found = client.list_topics(topic, timeout=_ASK_S * _ASKS).topics[topic]
            except self.driver().KafkaException as error:
                raise self.translated(error.args[0]) from None
            if found.error is None and found.partitions:
                return sorted(found.partitions)
            problem = found.error
            client.poll(_SETTLE_S)
        failure = self.translated(problem) if problem is not None else ConnectionError(f"{self.target}: no {topic!r}")
        if isinstance(failure, OperatorError):
            remedy = "create it, as with KafkaAdmin.create_topics, or correct its name"
            raise OperatorError(f"{self.target}, topic {topic!r}", failure.rule, remedy)
        raise failure

    def topic_id(self, topic: str) -> bytes | None:
        """What the cluster calls this very topic: another one made under its name has another. None: it does not say."""
        driver, admin = self.driver(), self.admin()  # which has to be there until it has answered
        asked = driver.TopicCollection([topic])
        try:
            answer = admin.describe_topics(asked, request_timeout=_ASK_S * _ASKS)[topic].result()
        except driver.KafkaException:
            return None
        halves = (answer.topic_id.get_most_significant_bits(), answer.topic_id.get_least_significant_bits())
        return struct.pack(">qq", *halves) if any(halves) else None

    # ------------------------------------------------------------------ errors
    def translated(self, error: Any) -> OSError | OperatorError:
        """A KafkaError: ConnectionError where a retry may mend it, else OperatorError."""
        kinds = self.driver().KafkaError
        told = self.redacted(f"{error.str()} ({error.name()})")
        if error.code() == kinds._AUTHENTICATION and self._mechanism not in told:
            told = f"{told} by {self._mechanism}"
        is_refused = error.code() in {getattr(kinds, name) for name in _OPERATOR}
        if is_refused or _CERTIFICATE.search(told):
            return OperatorError(
                self.target, told, "correct the address, the credentials, the rights or the names given"
            )
        return ConnectionError(f"{self.target}: {told}")

    def redacted(self, text: str) -> str:
        """``text`` without the secrets of the settings; a user's name only where it stands as a word."""
        return self._secret.sub("***", text)
