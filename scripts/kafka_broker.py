"""A Kafka broker for trying things out, on loopback and free ports: ``prepare`` fetches it once, ``start`` starts one.

    python scripts/kafka_broker.py prepare
    python scripts/kafka_broker.py start [FOLDER]

``start`` prints ``{"bootstrap", "pid", "folder"}`` when the broker answers, and leaves it running: ``kill PID`` ends it.
It needs Java, Maven (for ``prepare``) and confluent-kafka.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

from tidewarp.errors import TidewarpError
from tidewarp.testing.servers.kafka import KafkaServer, prepare_artifacts


def main() -> int:
    """Do what the arguments ask; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("prepare", help="fetch the broker into the user's cache")
    start = commands.add_parser("start", help="start a broker and print where it is")
    start.add_argument("folder", nargs="?", type=Path, help="where it keeps its data; default: a new temporary folder")
    arguments = parser.parse_args()
    try:
        if arguments.command == "prepare":
            sys.stdout.write(json.dumps({"artifacts": str(prepare_artifacts())}) + "\n")
            return 0
        folder = arguments.folder or Path(tempfile.mkdtemp(prefix="tidewarp-kafka-"))
        server = KafkaServer(folder).start()
    except TidewarpError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    found = {"bootstrap": server.bootstrap, "pid": server.pid, "folder": str(folder)}
    sys.stdout.write(json.dumps(found) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
