"""Avro with the AWS Glue Schema Registry: byte 3, compression (0 none, 5 zlib), the version's id (16 bytes), then Avro.

The wire format is that of the published serializer library of the registry (``awslabs/aws-glue-schema-registry``).
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from typing import Any

from tidewarp.connect.backends.avro import Form, bounded, own_form
from tidewarp.connect.contract import MESSAGE_BYTES_MAX, Undecodable
from tidewarp.errors import MissingExtra, OperatorError

__all__ = ["GlueAvro"]

_MAGIC, _NONE, _ZLIB = 3, 0, 5
_HEAD = 18
_REFUSED = {"InvalidInputException", "ResourceNumberLimitExceededException"}
_OPERATORS = {
    "AccessDeniedException",
    "ExpiredTokenException",
    "IncompleteSignature",
    "InvalidSignatureException",
    "UnrecognizedClientException",
}
_UNCONFIGURED = ("NoCredentialsError", "PartialCredentialsError", "NoRegionError", "ProfileNotFound")


class GlueAvro:
    """Serializer (:meth:`serialize`) and parser (:meth:`parse`) of records with a schema in a Glue registry.

    Args:
        registry_name: of the registry in AWS Glue.
        schema_str: the Avro schema that is written, as JSON text; a parser needs none.
        schema_name: topic -> name of the schema; default: the topic.
        register: register the schema where it is not there. Else it must be.
        compression: "none" or "zlib".
        client: keywords of ``boto3.client("glue", ...)``, such as ``region_name``.

    Ids and schemas are asked for once, and kept. The client is made at the first use.
    """

    def __init__(
        self,
        registry_name: str,
        schema_str: str | None = None,
        *,
        schema_name: Callable[[str], str] = str,
        register: bool = True,
        compression: str = "none",
        **client: Any,
    ) -> None:
        if compression not in ("none", "zlib"):
            raise OperatorError(f"compression {compression!r:.40}", "one of none, zlib", "correct it")
        self._registry, self._schema_str, self._schema_name = registry_name, schema_str, schema_name
        self._register, self._compresses = register, compression == "zlib"
        self._keywords = client
        self._what = f"Glue registry {registry_name}"
        self._made: Any = None
        self._form: Form | None = None
        self._ids: dict[str, bytes] = {}  # by name of the schema
        self._forms: dict[bytes, Form] = {}  # by id of the version

    def __repr__(self) -> str:
        return f"GlueAvro({self._what})"

    def serialize(self, topic: str, record: Mapping[str, Any]) -> bytes:
        """As :meth:`ConfluentAvro.serialize`, with the same errors."""
        if self._form is None:
            self._form = own_form(self._what, self._schema_str)
        data = self._form.write(self._form.chosen(record))
        name = self._schema_name(topic)
        if name not in self._ids:
            self._ids[name] = self._version(name)
        head = bytes([_MAGIC, _ZLIB if self._compresses else _NONE]) + self._ids[name]
        return head + (zlib.compress(data) if self._compresses else data)

    def parse(self, payload: bytes) -> Mapping[str, Any]:
        """As :meth:`ConfluentAvro.parse`, with the same errors."""
        data = payload[_HEAD:]
        if payload[:2] == bytes([_MAGIC, _ZLIB]):
            data = _unpacked(data)
        return self.prepare(payload).read(data)

    def prepare(self, payload: bytes) -> Form:
        """As :meth:`ConfluentAvro.prepare`, with the same errors."""
        if len(payload) < _HEAD or payload[0] != _MAGIC or payload[1] not in (_NONE, _ZLIB):
            rule = "it begins with byte 3, 0 or 5, and the id of a schema's version"
            raise Undecodable(f"{payload[:8]!r}", rule, "send it in Glue's framing", "avro")
        version = payload[2:_HEAD]
        form = self._forms.get(version)
        if form is None:
            bounded(self._forms)
            form = self._forms[version] = self._asked(version)
        return form

    def _version(self, name: str) -> bytes:
        """The id of the schema's version, which is registered if it is not there."""
        place = {"RegistryName": self._registry, "SchemaName": name}
        try:
            answer = self._call("get_schema_by_definition", SchemaId=place, SchemaDefinition=self._schema_str)
        except _Absent as absent:
            if not self._register:
                raise ConnectionError(f"{self._what}: schema {name} is not there") from absent
            answer = self._registered(name, place)
        status = answer.get("Status", "AVAILABLE")
        if status == "PENDING":
            raise ConnectionError(f"{self._what}: schema {name} is being checked")
        if status != "AVAILABLE":
            raise ValueError(f"{self._what}: schema {name} is refused ({status}): incompatible with those before it")
        return _bytes_of(answer["SchemaVersionId"])

    def _registered(self, name: str, place: Mapping[str, str]) -> Mapping[str, Any]:
        try:
            return self._call("register_schema_version", SchemaId=place, SchemaDefinition=self._schema_str)
        except _Absent:
            made = self._call(
                "create_schema",
                RegistryId={"RegistryName": self._registry},
                SchemaName=name,
                DataFormat="AVRO",
                Compatibility="BACKWARD",
                SchemaDefinition=self._schema_str,
            )
            return {"SchemaVersionId": made["SchemaVersionId"], "Status": made.get("SchemaVersionStatus", "AVAILABLE")}

    def _asked(self, version: bytes) -> Form:
        name = _text_of(version)
        try:
            answer = self._call("get_schema_version", SchemaVersionId=name)
        except _Absent as absent:
            raise ConnectionError(f"{self._what}: schema version {name} is not there") from absent
        if answer.get("DataFormat", "AVRO") != "AVRO":
            raise Undecodable(f"schema version {name}", "its data format is not Avro", "send Avro", "avro")
        try:
            return Form(answer["SchemaDefinition"])
        except ValueError as error:
            raise Undecodable(f"schema version {name}", str(error), "register one that is a schema", "avro") from error

    def _call(self, method: str, **arguments: Any) -> Mapping[str, Any]:
        try:
            if self._made is None:
                self._made = _boto3().client("glue", **self._keywords)
            answer: Mapping[str, Any] = getattr(self._made, method)(**arguments)
        except MissingExtra:
            raise
        except Exception as error:
            raise self._translated(method, error) from error
        return answer

    def _translated(self, method: str, error: Exception) -> Exception:
        response = getattr(error, "response", None)
        code = str(response.get("Error", {}).get("Code", "")) if isinstance(response, dict) else ""
        told = f"{self._what}: {method}: {code or type(error).__name__}"
        if code == "EntityNotFoundException":
            return _Absent(told)
        if code in _REFUSED:
            return ValueError(told)
        if code in _OPERATORS or type(error).__name__ in _UNCONFIGURED:
            return OperatorError(told, "it does not let this client in", "correct credentials and region")
        if isinstance(error, TypeError):
            return OperatorError(told, "boto3 takes no such keywords", f"correct {', '.join(sorted(self._keywords))}")
        return ConnectionError(told)


class _Absent(Exception):
    """The registry has no such entity."""


def _bytes_of(version: str) -> bytes:
    data = bytes.fromhex(version.replace("-", ""))
    if len(data) != _HEAD - 2:
        raise ValueError(f"schema version id of {len(data)} bytes")
    return data


def _text_of(version: bytes) -> str:
    text = version.hex()
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))


def _unpacked(data: bytes) -> bytes:
    inflater = zlib.decompressobj()
    try:
        plain = inflater.decompress(data, MESSAGE_BYTES_MAX)
    except zlib.error as error:
        raise Undecodable("a compressed message", f"it is no zlib: {error}", "send it whole", "avro") from error
    if not inflater.eof:
        rule = f"unpacked it is whole, and at most {MESSAGE_BYTES_MAX} bytes"
        raise Undecodable("a compressed message", rule, "send less", "size")
    return plain


def _boto3() -> Any:
    try:
        import boto3
    except ImportError as error:
        raise MissingExtra("GlueAvro", "it needs boto3", "pip install 'tidewarp[glue]'") from error
    return boto3
