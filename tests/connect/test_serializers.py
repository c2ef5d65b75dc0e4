"""Records to bytes and back, with real Avro, and with registries that refuse, fail, and come back."""

from __future__ import annotations

import json
import struct
import sys
import uuid
import zlib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import BaseModel
from registry_server import Registry

from tidewarp.codec import pack
from tidewarp.connect.contract import MESSAGE_BYTES_MAX, Output, Raw, RunIdentity, Undecodable
from tidewarp.connect.decoders import JsonMessages
from tidewarp.connect.payload import event_payload
from tidewarp.connect.serializers import ConfluentAvro, GlueAvro, Json
from tidewarp.errors import MissingExtra, OperatorError

fastavro = pytest.importorskip("fastavro", reason="pip install 'tidewarp[avro]'")
pytest.importorskip("confluent_kafka.schema_registry", reason="pip install 'tidewarp[avro]'")
botocore = pytest.importorskip("botocore.exceptions", reason="pip install 'tidewarp[glue]'")


def schema(name: str, **fields: Any) -> str:
    listed = [{"name": field, "type": kind} for field, kind in fields.items()]
    return json.dumps({"type": "record", "name": name, "fields": listed})


PART = schema("Part", part="int", status="string")
READING = schema("Reading", path_id="string", value="double", sim_ts="double")
UPDATE = schema("Update", path="string", value="double")


def record(value: Any, *, stream: str = "event", key: str = "line.done") -> dict[str, Any]:
    content = value if isinstance(value, BaseModel) else pack(value)
    output = Output("0-0", 5 * 10**9, key, pack(None) if isinstance(value, BaseModel) else content, "c", "r", 1, stream)
    payload = event_payload(output, RunIdentity("ab" * 32, 0))
    return payload | {"value": value}


def read(text: str, data: bytes) -> Any:
    import io

    return fastavro.schemaless_reader(io.BytesIO(data), fastavro.parse_schema(json.loads(text)))


class PartModel(BaseModel):
    part: int
    status: str


# ---------------------------------------------------------------------------- JSON


def test_json_writes_the_record_and_models_as_objects() -> None:
    """NaN becomes null, as in every other place."""
    data = Json().serialize("any", record(PartModel(part=3, status="done")))
    assert json.loads(data)["value"] == {"part": 3, "status": "done"}
    assert json.loads(Json().serialize("any", record(float("nan"))))["value"] is None


# ---------------------------------------------------------------------------- what is written


@pytest.fixture(params=["confluent", "glue"])
def make(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Any]]:
    """A maker of serializers and parsers that share a registry."""
    if request.param == "confluent":
        with Registry() as registry:
            yield lambda *schema_str, **more: ConfluentAvro(registry.url, *schema_str, **more)
    else:
        glue = Glue()
        monkeypatch.setattr("boto3.client", glue.client)
        yield lambda *schema_str, **more: GlueAvro("plant", *schema_str, **more)


def test_the_schema_of_the_value_writes_the_value_and_that_of_the_record_the_record(make: Callable[..., Any]) -> None:
    """What the published article's sample could not do: its serializer was given the envelope instead of the model."""
    value = {"part": 3, "status": "done"}
    reader = make()
    assert reader.parse(make(PART).serialize("a", record(value))) == value
    assert reader.parse(make(PART).serialize("a", record(PartModel(**value)))) == value
    telemetry = record(0.5, stream="telemetry", key="line.use")
    assert reader.parse(make(READING).serialize("b", telemetry)) == {"path_id": "line.use", "value": 0.5, "sim_ts": 5.0}


def test_a_dataclass_of_avroschema_is_written(make: Callable[..., Any]) -> None:
    """An AvroBaseModel is a pydantic model that brings its schema."""
    pydantic = pytest.importorskip("dataclasses_avroschema.pydantic", reason="pip install 'tidewarp[avro]'")

    class Done(pydantic.AvroBaseModel):  # type: ignore[misc,name-defined]
        part: int
        status: str

    data = make(Done.avro_schema()).serialize("avromodel", record(Done(part=3, status="done")))
    assert make().parse(data) == {"part": 3, "status": "done"}


def test_defaults_make_a_schema_fit_nothing_that_has_none_of_its_fields(make: Callable[..., Any]) -> None:
    """Else each record would be written as defaults alone."""
    fields = [{"name": "status", "type": "string", "default": "?"}, {"name": "n", "type": "int", "default": 0}]
    text = json.dumps({"type": "record", "name": "Defaults", "fields": fields})
    assert make().parse(make(text).serialize("d", record({"status": "done"}))) == {"status": "done", "n": 0}
    with pytest.raises(ValueError, match="fits neither"):
        make(text).serialize("d", record({"other": 1}))


@pytest.mark.parametrize(
    "value", [{"part": "three", "status": "x"}, {"part": 1}, {"part": 2**40, "status": "x"}, 5, None]
)
def test_a_record_that_does_not_fit_is_refused_and_the_next_is_written(make: Callable[..., Any], value: Any) -> None:
    """A ValueError: one dead letter, not the end of the batch."""
    serializer = make(PART)
    with pytest.raises(ValueError, match="fits neither the record nor its value"):
        serializer.serialize("a", record(value))
    assert serializer.serialize("a", record({"part": 1, "status": "x"}))


def test_an_update_is_read_from_its_avro_bytes(make: Callable[..., Any]) -> None:
    """`parse` is the parser of JsonMessages, so the same rules follow."""
    data = make(UPDATE).serialize("config", {"value": {"path": "line.t", "value": 71.5}})
    update = JsonMessages(0, parse=make().parse).decode(Raw(0, 0, data))
    assert update.changes == (("line.t", 71.5),)


def test_moments_are_read_as_text(make: Callable[..., Any]) -> None:
    """A logical type of Avro becomes what a message's time is written as."""
    text = schema("Timed", path="string", value="double", time={"type": "long", "logicalType": "timestamp-millis"})
    when = datetime(2026, 11, 22, 10, tzinfo=UTC)
    data = make(text).serialize("timed", {"value": {"path": "a", "value": 1.0, "time": when}})
    assert JsonMessages(0, parse=make().parse).decode(Raw(0, 0, data)).tick == int(when.timestamp()) * 10**9


@pytest.mark.parametrize(
    "cut", [b"", b"{}", b"\0\0", b"\1\0\0\0\1\0", b"\3\7" + bytes(20), b"\3\5" + bytes(16) + b"junk"]
)
def test_bytes_that_are_no_such_message_are_undecodable(make: Callable[..., Any], cut: bytes) -> None:
    """Before any registry is asked."""
    with pytest.raises(Undecodable):
        make().parse(cut)


def test_damaged_avro_is_undecodable(make: Callable[..., Any]) -> None:
    """Every prefix, and a length that claims more than there is."""
    data = make(PART).serialize("a", record({"part": 1, "status": "done"}))
    head = 5 if data[0] == 0 else 18
    for end in range(head, len(data)):
        with pytest.raises(Undecodable):
            make().parse(data[:end])
    with pytest.raises(Undecodable):
        make().parse(data[:head] + b"\2" + b"\xfe\xff\xff\xff\xff\xff\xff\xff\x7f" + b"x")


@pytest.mark.parametrize("text", ["", "{", "{}", '"nothing"', "3"])
def test_a_schema_that_is_none_ends_the_run(make: Callable[..., Any], text: str) -> None:
    """It is the operator's: no record could ever be written."""
    with pytest.raises(OperatorError, match="schema_str"):
        make(text).serialize("a", record(1))


def test_a_parser_alone_has_nothing_to_write_with(make: Callable[..., Any]) -> None:
    """It says which argument is missing."""
    with pytest.raises(OperatorError, match="give schema_str"):
        make().serialize("a", record(1))


# ---------------------------------------------------------------------------- Confluent, over HTTP


def test_the_framing_is_confluents_and_ids_are_asked_for_once() -> None:
    """Zero byte, id, Avro; one request per subject and per id."""
    with Registry() as registry:
        serializer = ConfluentAvro(registry.url, PART)
        for topic in ("a", "b", "a", "b"):
            data = serializer.serialize(topic, record({"part": 3, "status": "done"}))
        assert sorted(registry.subjects) == ["a-value", "b-value"]
        number = registry.subjects["b-value"][0]
        assert data[:5] == b"\0" + struct.pack(">I", number)
        assert read(PART, data[5:]) == {"part": 3, "status": "done"}
        parser = ConfluentAvro(registry.url)
        assert parser.parse(data) == parser.parse(data) == {"part": 3, "status": "done"}
        posts = [request for request in registry.requests if request.startswith("POST")]
        gets = [request for request in registry.requests if "/schemas/ids/" in request]
        assert (len(posts), len(gets)) == (2, 1)


def test_a_registry_in_memory_serves_tests() -> None:
    """The client's own mock, by its address."""
    both = ConfluentAvro("mock://plant", PART)
    data = both.serialize("a", record({"part": 3, "status": "done"}))
    assert data[0] == 0
    assert both.parse(data) == {"part": 3, "status": "done"}
    with pytest.raises(ConnectionError, match="404"):
        both.parse(b"\0" + struct.pack(">I", 99) + b"\2")


def test_schemas_that_refer_to_others_are_read() -> None:
    """References are followed, those of references too, and once each."""
    from confluent_kafka.schema_registry import Schema, SchemaReference

    both = ConfluentAvro("mock://plant", PART)
    client = both._client()
    client.register_schema("unit", Schema(schema("Unit", text="string"), "AVRO"))
    place = Schema(schema("Place", unit="Unit"), "AVRO", [SchemaReference("Unit", "unit", 1)])
    client.register_schema("place", place)
    whole = schema("Whole", place="Place", unit="Unit")
    references = [SchemaReference("Place", "place", 1), SchemaReference("Unit", "unit", 1)]
    number = client.register_schema("whole", Schema(whole, "AVRO", references))
    data = b"\0" + struct.pack(">I", number) + b"\2x\2y"
    assert both.parse(data) == {"place": {"unit": {"text": "x"}}, "unit": {"text": "y"}}


def test_an_outage_of_the_registry_is_retried_and_its_end_seen() -> None:
    """ConnectionError while it is down, at writing and at reading; afterwards the same objects work."""
    registry = Registry()
    with registry:
        data = ConfluentAvro(registry.url, PART).serialize("a", record({"part": 1, "status": "x"}))
        serializer, parser = ConfluentAvro(registry.url, PART), ConfluentAvro(registry.url)
        for status in (500, 503, 429):
            registry.status = status
            for attempt in (
                lambda: serializer.serialize("a", record({"part": 1, "status": "x"})),
                lambda: parser.parse(data),
            ):
                with pytest.raises(ConnectionError, match=str(status)):
                    attempt()
        registry.status = 0
        assert serializer.serialize("a", record({"part": 1, "status": "x"})) == data
        assert parser.parse(data)["part"] == 1
        gone = ConfluentAvro(registry.url, PART), ConfluentAvro(registry.url)
    with pytest.raises(ConnectionError):
        gone[0].serialize("a", record({"part": 1, "status": "x"}))
    with pytest.raises(ConnectionError):
        gone[1].parse(data)
    assert parser.parse(data)["part"] == 1, "what was asked for once needs no registry"


def test_an_incompatible_schema_refuses_the_record_and_an_unknown_one_is_retried() -> None:
    """409 is a dead letter; 404 may only mean that somebody has not registered it yet."""
    with Registry() as registry:
        ConfluentAvro(registry.url, READING).serialize("a", record(1.0, stream="telemetry"))
        with pytest.raises(ValueError, match="incompatible"):
            ConfluentAvro(registry.url, PART).serialize("a", record({"part": 1, "status": "x"}))
        waits = ConfluentAvro(registry.url, PART, register=False)
        with pytest.raises(ConnectionError, match="not found"):
            waits.serialize("b", record({"part": 1, "status": "x"}))
        ConfluentAvro(registry.url, PART).serialize("b", record({"part": 1, "status": "x"}))
        assert waits.serialize("b", record({"part": 1, "status": "x"}))
        with pytest.raises(ConnectionError, match="not found"):
            ConfluentAvro(registry.url).parse(b"\0" + struct.pack(">I", 99) + b"\2")


def test_credentials_are_used_and_never_shown() -> None:
    """Wrong ones end the run; neither message nor repr holds them."""
    with Registry(user="plant:hush") as registry:
        good = ConfluentAvro(registry.url, PART, basic_auth_user_info="plant:hush")
        assert good.serialize("a", record({"part": 1, "status": "x"}))
        url = registry.url.replace("http://", "http://plant:wrong-secret@")
        for bad in (
            ConfluentAvro(url, PART),
            ConfluentAvro(registry.url, PART, basic_auth_user_info="plant:wrong-secret"),
        ):
            with pytest.raises(OperatorError, match="401") as caught:
                bad.serialize("a", record({"part": 1, "status": "x"}))
            assert "wrong-secret" not in str(caught.value) + repr(bad)


def test_settings_that_the_client_does_not_take_end_the_run() -> None:
    """With their names, not their values."""
    bad = ConfluentAvro("http://127.0.0.1:1", PART, colour="red-secret")
    with pytest.raises(OperatorError, match="colour") as caught:
        bad.serialize("a", record({"part": 1, "status": "x"}))
    assert "red-secret" not in str(caught.value)


def test_the_subject_may_be_chosen() -> None:
    """As a topic's own name, for instance."""
    with Registry() as registry:
        ConfluentAvro(registry.url, PART, subject=str.upper).serialize("a", record({"part": 1, "status": "x"}))
        assert list(registry.subjects) == ["A"]


# ---------------------------------------------------------------------------- Glue


class Glue:
    """The four calls of AWS Glue's registry, in memory. A schema is compatible if it keeps the first one's name."""

    def __init__(self) -> None:
        self.schemas: dict[str, list[str]] = {}  # name -> ids of versions
        self.versions: dict[str, str] = {}  # id -> definition
        self.calls: list[str] = []
        self.fails: Exception | None = None
        self.status = "AVAILABLE"

    def client(self, service: str, **_: Any) -> Glue:
        assert service == "glue"
        return self

    def _begin(self, method: str) -> None:
        self.calls.append(method)
        if self.fails is not None:
            raise self.fails

    def _add(self, name: str, definition: str) -> str:
        version = str(uuid.UUID(int=len(self.versions) + 1))
        self.schemas.setdefault(name, []).append(version)
        self.versions[version] = definition
        return version

    def get_schema_by_definition(self, **asked: Any) -> dict[str, str]:
        self._begin("get_schema_by_definition")
        for version in self.schemas.get(asked["SchemaId"]["SchemaName"], ()):
            if self.versions[version] == asked["SchemaDefinition"]:
                return {"SchemaVersionId": version, "Status": self.status}
        raise absent()

    def register_schema_version(self, **asked: Any) -> dict[str, str]:
        self._begin("register_schema_version")
        name, definition = asked["SchemaId"]["SchemaName"], asked["SchemaDefinition"]
        known = self.schemas.get(name)
        if known is None:
            raise absent()
        if json.loads(self.versions[known[0]])["name"] != json.loads(definition)["name"]:
            return {"SchemaVersionId": str(uuid.UUID(int=9)), "Status": "FAILURE"}
        return {"SchemaVersionId": self._add(name, definition), "Status": "AVAILABLE"}

    def create_schema(self, **asked: Any) -> dict[str, str]:
        self._begin("create_schema")
        name, definition = asked.pop("SchemaName"), asked.pop("SchemaDefinition")
        assert asked == {"RegistryId": {"RegistryName": "plant"}, "DataFormat": "AVRO", "Compatibility": "BACKWARD"}
        return {"SchemaVersionId": self._add(name, definition), "SchemaVersionStatus": "AVAILABLE"}

    def get_schema_version(self, **asked: Any) -> dict[str, str]:
        self._begin("get_schema_version")
        if asked["SchemaVersionId"] not in self.versions:
            raise absent()
        return {"SchemaDefinition": self.versions[asked["SchemaVersionId"]], "DataFormat": "AVRO"}


def absent(code: str = "EntityNotFoundException") -> botocore.ClientError:
    return botocore.ClientError({"Error": {"Code": code, "Message": "no"}}, "call")


@pytest.fixture
def glue(monkeypatch: pytest.MonkeyPatch) -> Glue:
    registry = Glue()
    monkeypatch.setattr("boto3.client", registry.client)
    return registry


@pytest.mark.parametrize("compression", ["none", "zlib"])
def test_the_framing_is_glues_and_ids_are_asked_for_once(glue: Glue, compression: str) -> None:
    """Byte 3, compression, the id of the version, Avro."""
    serializer = GlueAvro("plant", PART, compression=compression, region_name="eu-north-1")
    written = [serializer.serialize(topic, record({"part": 3, "status": "done"})) for topic in ("a", "a")]
    assert written[0] == written[1]
    assert written[0][:2] == (b"\3\5" if compression == "zlib" else b"\3\0")
    assert written[0][2:18] == uuid.UUID(glue.schemas["a"][0]).bytes
    avro = zlib.decompress(written[0][18:]) if compression == "zlib" else written[0][18:]
    assert read(PART, avro) == {"part": 3, "status": "done"}
    parser = GlueAvro("plant")
    assert parser.parse(written[0]) == parser.parse(written[1]) == {"part": 3, "status": "done"}
    assert glue.calls == [
        "get_schema_by_definition", "register_schema_version", "create_schema", "get_schema_version",
    ]  # fmt: skip


def test_a_version_that_glue_refuses_is_a_dead_letter_and_one_it_checks_is_retried(glue: Glue) -> None:
    """FAILURE, PENDING, and a schema that nobody has registered."""
    GlueAvro("plant", READING).serialize("a", record(1.0, stream="telemetry"))
    with pytest.raises(ValueError, match="incompatible"):
        GlueAvro("plant", PART).serialize("a", record({"part": 1, "status": "x"}))
    glue.status = "PENDING"
    waits = GlueAvro("plant", READING)
    with pytest.raises(ConnectionError, match="being checked"):
        waits.serialize("a", record(1.0, stream="telemetry"))
    glue.status = "AVAILABLE"
    assert waits.serialize("a", record(1.0, stream="telemetry"))
    with pytest.raises(ConnectionError, match="not there"):
        GlueAvro("plant", PART, register=False).serialize("b", record({"part": 1, "status": "x"}))
    with pytest.raises(ConnectionError, match="not there"):
        GlueAvro("plant").parse(b"\3\0" + bytes(16) + b"\2")


@pytest.mark.parametrize(
    ("failure", "kind"),
    [
        (absent("ThrottlingException"), ConnectionError),
        (absent("InternalServiceException"), ConnectionError),
        (botocore.EndpointConnectionError(endpoint_url="glue"), ConnectionError),
        (absent("InvalidInputException"), ValueError),
        (absent("AccessDeniedException"), OperatorError),
        (absent("ExpiredTokenException"), OperatorError),
        (botocore.NoCredentialsError(), OperatorError),
    ],
    ids=lambda value: str(value)[:60],
)
def test_a_failure_of_glue_says_who_can_mend_it(glue: Glue, failure: Exception, kind: type[Exception]) -> None:
    """An outage passes, a request without sense is the record's, credentials are the operator's."""
    glue.fails = failure
    serializer = GlueAvro("plant", PART)
    with pytest.raises(kind):
        serializer.serialize("a", record({"part": 1, "status": "x"}))
    glue.fails = None
    assert serializer.serialize("a", record({"part": 1, "status": "x"}))


def test_what_unpacks_to_more_than_a_message_may_have_is_undecodable(glue: Glue) -> None:
    """A bomb of zlib is stopped at the bound."""
    text = schema("Blob", blob="bytes")
    with pytest.raises(Undecodable, match="at most"):
        GlueAvro("plant", text).parse(b"\3\5" + bytes(16) + zlib.compress(bytes(8 * MESSAGE_BYTES_MAX)))


def test_a_compression_that_is_none_is_refused() -> None:
    """Where it is set."""
    with pytest.raises(OperatorError, match="one of none, zlib"):
        GlueAvro("plant", PART, compression="gzip")


@pytest.mark.parametrize(
    ("module", "make"),
    [
        ("fastavro", lambda: ConfluentAvro("mock://x", PART)),
        ("confluent_kafka", lambda: ConfluentAvro("mock://x", PART)),
        ("boto3", lambda: GlueAvro("plant", PART)),
    ],
)
def test_a_missing_package_is_named_at_the_first_use(
    monkeypatch: pytest.MonkeyPatch, module: str, make: Callable[[], Any]
) -> None:
    """With the command that installs it, and not before somebody writes."""
    for name in [name for name in sys.modules if name.split(".")[0] == module]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)
    serializer = make()
    with pytest.raises(MissingExtra, match="pip install"):
        serializer.serialize("a", record({"part": 1, "status": "x"}))
