"""A Mosquitto broker for MQTT 5."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tidewarp.testing.servers.base import HOST, Server, program

__all__ = ["MosquittoServer"]

_REMEDY = "apt-get install mosquitto"


class MosquittoServer(Server):
    """``mosquitto`` 2.0 with persistence.

    What it keeps: sessions and their messages are saved after each change, but beside the acknowledgement and not before
    it: :meth:`stop` loses nothing, :meth:`kill` may lose what was acknowledged last.

    Args:
        folder: of its own.
        user: what a client has to say; None: nothing.
        password: likewise.
        settings: further lines of its configuration, such as "max_packet_size 65536".
    """

    name = "mosquitto"

    def __init__(
        self, folder: Path, *, user: str | None = None, password: str = "", settings: Sequence[str] = ()
    ) -> None:
        super().__init__(folder)
        self._user, self._password, self._settings = user, password, tuple(settings)
        self._log_at = 0

    def prepare(self) -> None:
        """The file of passwords, hashed."""
        if self._user is not None:
            hasher = program("mosquitto_passwd", _REMEDY)
            file = str(self.folder / "passwords")
            subprocess.run([hasher, "-b", "-c", file, self._user, self._password], check=True, capture_output=True)

    def command(self) -> Sequence[str]:
        """Its configuration is written at each start: the port may have changed."""
        lines = [
            f"listener {self.port} {HOST}",
            f"allow_anonymous {str(self._user is None).lower()}",
            "persistence true",
            f"persistence_location {self.folder}/",
            "autosave_on_changes true",
            "autosave_interval 1",
            "log_dest stderr",
            "connection_messages false",
            *([f"password_file {self.folder}/passwords"] if self._user is not None else []),
            *(["user root"] if os.geteuid() == 0 else []),  # else it becomes one who may not write here
            *self._settings,
        ]
        config = self.folder / "mosquitto.conf"
        config.write_text("\n".join(lines) + "\n")
        log = self.folder / f"{self.name}.log"
        self._log_at = log.stat().st_size if log.exists() else 0
        return [program("mosquitto", _REMEDY), "-c", str(config)]

    def answers(self) -> bool:
        """It says so itself, in the log that only it writes, once its listener is open."""
        with (self.folder / f"{self.name}.log").open("rb") as log:
            log.seek(self._log_at)
            return b" running" in log.read() and self.runs
