"""Avro with a Confluent Schema Registry: byte 0, the schema's id (4 bytes, big-endian), then Avro.

The wire format is that of Confluent's documentation, "Formats, serializers, and deserializers for Schema Registry".
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, TypeVar
from urllib.parse import urlsplit

from tidewarp.connect.backends.avro import Form, bounded, own_form
from tidewarp.connect.contract import Undecodable
from tidewarp.errors import MissingExtra, OperatorError

__all__ = ["ConfluentAvro"]

_HEAD = 5
_TIMEOUT_S = 10
_REFUSED = (409, 422)  # incompatible with the versions before it, or no schema
_MAY_PASS = (404, 408, 429)  # 404: a schema that is not there yet
_T = TypeVar("_T")


class ConfluentAvro:
    """Serializer (:meth:`serialize`) and parser (:meth:`parse`) of records with a schema in a Confluent registry.

    Args:
        registry_url: of the registry; ``mock://name`` is one in memory, for tests.
        schema_str: the Avro schema that is written, as JSON text; a parser needs none.
        subject: topic -> subject; default ``{topic}-value``.
        register: register the schema where the subject has it not. Else it must be there.
        config: what else the client takes, in Confluent's names; ``basic_auth_user_info`` is ``basic.auth.user.info``.

    Schemas and ids are asked for once, and kept. The client is made at the first use.
    """

    def __init__(
        self,
        registry_url: str,
        schema_str: str | None = None,
        *,
        subject: Callable[[str], str] = "{}-value".format,
        register: bool = True,
        **config: Any,
    ) -> None:
        self._url, self._schema_str = registry_url, schema_str
        self._subject, self._register = subject, register
        self._config = {name.replace("_", "."): value for name, value in config.items()}
        host = urlsplit(registry_url)
        self._what = f"schema registry {host.scheme}://{host.hostname or ''}{f':{host.port}' if host.port else ''}"
        self._made: Any = None
        self._form: Form | None = None
        self._ids: dict[str, int] = {}  # by subject
        self._forms: dict[int, Form] = {}  # by id

    def __repr__(self) -> str:
        return f"ConfluentAvro({self._what})"

    def serialize(self, topic: str, record: Mapping[str, Any]) -> bytes:
        """The bytes of ``record``, or of its ``value`` if the schema fits that and not the record.

        Raises:
            ValueError: the record does not fit the schema, or the subject refuses the schema: the record is refused.
            ConnectionError: the registry does not answer now, or does not know the schema yet.
            OperatorError: wrong credentials, settings or schema text. MissingExtra: a package is not installed.
        """
        if self._form is None:
            self._form = own_form(self._what, self._schema_str)
        datum = self._form.chosen(record)
        return b"\0" + self._id(self._subject(topic)).to_bytes(4, "big") + self._form.write(datum)

    def parse(self, payload: bytes) -> Mapping[str, Any]:
        """The record that ``payload`` holds.

        Raises:
            Undecodable: no such framing, or bytes that do not fit their schema.
            ConnectionError: the registry does not answer now, or does not know the schema yet.
            OperatorError: wrong credentials or settings. MissingExtra: a package is not installed.
        """
        return self.prepare(payload).read(payload[_HEAD:])

    def prepare(self, payload: bytes) -> Form:
        """The schema of ``payload``, asked for if it is new: what of :meth:`parse` may block. Raises the same."""
        if len(payload) < _HEAD or payload[0] != 0:
            rule = "it begins with byte 0 and the id of a schema"
            raise Undecodable(f"{payload[:8]!r}", rule, "send it in Confluent's framing", "avro")
        number = int.from_bytes(payload[1:_HEAD], "big")
        form = self._forms.get(number)
        if form is None:
            bounded(self._forms)
            form = self._forms[number] = self._asked(number)
        return form

    def _id(self, subject: str) -> int:
        if subject not in self._ids:
            schema = _registry().Schema(self._schema_str, "AVRO")
            client = self._client()
            if self._register:
                number = self._tried(f"schema of {subject}", lambda: client.register_schema(subject, schema))
            else:
                number = self._tried(f"schema of {subject}", lambda: client.lookup_schema(subject, schema).schema_id)
            self._ids[subject] = int(number)
        return self._ids[subject]

    def _asked(self, number: int) -> Form:
        client = self._client()
        schema = self._tried(f"schema {number}", lambda: client.get_schema(number))
        if (schema.schema_type or "AVRO") != "AVRO":
            raise Undecodable(f"schema {number}", f"it is of type {schema.schema_type}", "send Avro", "avro")
        named: dict[str, Any] = {}
        self._tried(f"references of schema {number}", lambda: self._refer(schema, named))
        try:
            return Form(schema.schema_str, named)
        except ValueError as error:
            raise Undecodable(f"schema {number}", str(error), "register a schema that is one", "avro") from error

    def _refer(self, schema: Any, named: dict[str, Any]) -> None:
        """The schemas that ``schema`` refers to, those that they need before them."""
        for reference in schema.references or ():
            if reference.name not in named:
                further = self._client().get_version(reference.subject, reference.version).schema
                self._refer(further, named)
                named[reference.name] = json.loads(further.schema_str)

    def _client(self) -> Any:
        if self._made is None:
            # The host retries, and says so: a client that retries by itself would only hide an outage.
            settings = {"url": self._url, "max.retries": 0, "timeout": _TIMEOUT_S, **self._config}
            try:
                self._made = _registry().SchemaRegistryClient.new_client(settings)
            except (ValueError, TypeError, OSError) as error:
                rule = f"its client takes no such settings as {', '.join(sorted(settings))} ({type(error).__name__})"
                raise OperatorError(self._what, rule, "correct the url or the keywords") from error
        return self._made

    def _tried(self, what: str, ask: Callable[[], _T]) -> _T:
        try:
            return ask()
        except MissingExtra:
            raise
        except Exception as error:  # besides its own class the client lets those of its HTTP library through
            raise self._translated(what, error) from error

    def _translated(self, what: str, error: Exception) -> Exception:
        status = getattr(error, "http_status_code", None)
        told = f"{self._what}: {what}"
        if not isinstance(status, int):
            return ConnectionError(f"{told}: {type(error).__name__}")
        reason = f"{status}: {getattr(error, 'error_message', '')!s:.200}"
        if status in _REFUSED:
            return ValueError(f"{told}: {reason}")
        if 400 <= status < 500 and status not in _MAY_PASS:
            return OperatorError(told, f"it answers {reason}", "correct credentials and settings")
        return ConnectionError(f"{told}: {reason}")


def _registry() -> Any:
    try:
        from confluent_kafka import schema_registry
    except ImportError as error:
        rule = "it needs confluent-kafka with its schema registry client"
        raise MissingExtra("ConfluentAvro", rule, "pip install 'tidewarp[avro]'") from error
    return schema_registry
