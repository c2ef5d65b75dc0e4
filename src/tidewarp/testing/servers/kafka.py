"""An Apache Kafka broker of one node (KRaft), from Maven artifacts that are fetched once into the user's cache."""

from __future__ import annotations

import base64
import hashlib
import os
import socket
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tidewarp.errors import MissingExtra, OperatorError
from tidewarp.testing.servers.base import HOST, Server, free_port, program
from tidewarp.testing.servers.certificates import Certificates

__all__ = ["PASSWORD", "USER", "VERSION", "KafkaServer", "artifacts", "prepare_artifacts"]

VERSION = "3.9.1"
"""Of Kafka: it runs on Java 11 and later."""
USER, PASSWORD = "operator", "canary-of-the-broker"
"""Who may use the listener with SASL PLAIN and SCRAM-SHA-256."""

_REMEDY = "apt-get install openjdk-17-jre-headless maven; python scripts/kafka_broker.py prepare"
_FETCH_S = 600.0
_FORMAT_S = 60.0
_ASK_S = 2.0
# Quick to start rather than quick at work: no optimising compiler, the smallest collector.
_JAVA = ("-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto")
_POM = """\
<project>
  <modelVersion>4.0.0</modelVersion>
  <groupId>tidewarp</groupId>
  <artifactId>broker</artifactId>
  <version>1</version>
  <dependencies>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>{kafka}</version></dependency>
    <dependency><groupId>org.slf4j</groupId><artifactId>slf4j-nop</artifactId><version>1.7.36</version></dependency>
  </dependencies>
</project>
"""
_PROPERTIES = """\
process.roles=broker,controller
node.id=1
listeners=PLAINTEXT://{host}:{port},SASL://{host}:{sasl_port},CONTROLLER://{host}:{controller_port}{tls_listener}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,TLS:SSL,SASL:{sasl_protocol}
controller.listener.names=CONTROLLER
controller.quorum.voters=1@{host}:{controller_port}
inter.broker.listener.name=PLAINTEXT
sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,OAUTHBEARER
listener.name.sasl.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required \
user_{user}="{password}";
listener.name.sasl.scram-sha-256.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.sasl.oauthbearer.sasl.jaas.config=\
org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub="broker";
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=1
transaction.abort.timed.out.transaction.cleanup.interval.ms=500
group.initial.rebalance.delay.ms=0
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500
group.min.session.timeout.ms=1000
auto.create.topics.enable=false
log.dirs={data}
"""
_TLS = """\
ssl.keystore.type=PEM
ssl.keystore.location={server}
ssl.truststore.type=PEM
ssl.truststore.location={authority}
listener.name.tls.ssl.client.auth=required
"""


def artifacts() -> Path:
    """The folder with the broker's jars; it is there if, and only if, all of them are."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache, "tidewarp", f"kafka-{VERSION}")


def prepare_artifacts() -> Path:
    """Let Maven fetch the jars, unless they are there. Takes a minute, once.

    Raises:
        MissingExtra: Java or Maven is not installed, or Maven cannot fetch them.
    """
    program("java", _REMEDY)
    folder = artifacts()
    if folder.is_dir():
        return folder
    maven = program("mvn", _REMEDY)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as work:
        Path(work, "pom.xml").write_text(_POM.format(kafka=VERSION))
        command = [maven, "-q", "-B", "dependency:copy-dependencies", "-DoutputDirectory=lib", "-DincludeScope=runtime"]
        done = subprocess.run(command, cwd=work, capture_output=True, timeout=_FETCH_S, check=False)
        if done.returncode:
            told = done.stdout.decode(errors="replace").strip()[-300:]
            raise MissingExtra(f"Kafka {VERSION}", f"Maven cannot fetch it: {told}", _REMEDY)
        try:
            Path(work, "lib").rename(folder)  # all of them at once, whatever is killed
        except OSError:
            if not folder.is_dir():  # else another process was quicker
                raise
    return folder


class KafkaServer(Server):
    """A broker with one listener for everybody (``bootstrap``) and one with SASL (``sasl_bootstrap``).

    The latter takes ``USER`` with ``PASSWORD`` by PLAIN and SCRAM-SHA-256, and every unsigned token by OAUTHBEARER. With
    ``certificates`` it is SASL_SSL, and a third listener, SSL, asks each client for a certificate (``tls_bootstrap``).
    Topics are not made by using them. What it holds survives :meth:`kill` and :meth:`start`: the system keeps what was
    written to files.
    """

    name = "kafka"

    def __init__(self, folder: Path, *, certificates: Certificates | None = None) -> None:
        super().__init__(folder)
        self._certificates = certificates
        self.sasl_port = self.tls_port = self._controller_port = 0

    @property
    def bootstrap(self) -> str:
        """For ``bootstrap_servers``, without authentication."""
        return f"{HOST}:{self.port}"

    @property
    def sasl_bootstrap(self) -> str:
        """For ``bootstrap_servers``, with ``security.protocol`` SASL_PLAINTEXT, or SASL_SSL where it has certificates."""
        return f"{HOST}:{self.sasl_port}"

    @property
    def tls_bootstrap(self) -> str:
        """For ``bootstrap_servers``, with ``security.protocol`` SSL and a certificate of the same authority."""
        return f"{HOST}:{self.tls_port}"

    @property
    def cluster_id(self) -> str:
        """Of this folder: by it the broker is known from a stranger on the same port."""
        digest = hashlib.sha256(os.fsencode(self.folder.absolute())).digest()[:16]
        text = base64.urlsafe_b64encode(digest).decode().rstrip("=")
        return "A" + text[1:]  # one that began with "-" would be taken for an option

    def prepare(self) -> None:
        """Format its storage."""
        settings = self._write_settings()
        scram = f"SCRAM-SHA-256=[name={USER},password={PASSWORD}]"
        format_ = ("kafka.tools.StorageTool", "format", "-t", self.cluster_id, "-c", settings, "--add-scram", scram)
        done = subprocess.run(self._java(*format_), capture_output=True, timeout=_FORMAT_S, check=False)
        if done.returncode:
            told = (done.stdout + done.stderr).decode(errors="replace")[-500:]
            raise OperatorError(f"kafka in {self.folder}", f"its storage cannot be formatted: {told}", "name another")

    def command(self) -> Sequence[str]:
        """The broker, on its ports."""
        return self._java("kafka.Kafka", self._write_settings())

    def answers(self) -> bool:
        """Does our cluster answer?"""
        socket.create_connection((HOST, self.port), _ASK_S).close()  # refused: cheaper to learn than by the driver
        try:
            from confluent_kafka import KafkaException
            from confluent_kafka.admin import AdminClient
        except ImportError as error:
            raise MissingExtra(
                "kafka server", "it is asked by confluent-kafka", "pip install 'tidewarp[kafka]'"
            ) from error
        try:
            found: Any = AdminClient({"bootstrap.servers": self.bootstrap, "log_level": 0}).list_topics(timeout=_ASK_S)
        except KafkaException:
            return False
        return bool(found.cluster_id == self.cluster_id and found.brokers)

    def _java(self, *arguments: str) -> list[str]:
        return [program("java", _REMEDY), *_JAVA, "-cp", f"{prepare_artifacts()}/*", *arguments]

    def _write_settings(self) -> str:
        self.sasl_port = self.sasl_port or free_port()
        self._controller_port = self._controller_port or free_port()
        tls_listener, tls = "", ""
        if self._certificates is not None:
            self.tls_port = self.tls_port or free_port()
            tls_listener = f",TLS://{HOST}:{self.tls_port}"
            tls = _TLS.format(server=self._certificates.server, authority=self._certificates.authority)
        file = self.folder / "server.properties"
        file.write_text(
            _PROPERTIES.format(
                host=HOST,
                port=self.port,
                sasl_port=self.sasl_port,
                sasl_protocol="SASL_SSL" if tls else "SASL_PLAINTEXT",
                tls_listener=tls_listener,
                controller_port=self._controller_port,
                user=USER,
                password=PASSWORD,
                data=self.folder / "data",
            )
            + tls
        )
        return str(file)
