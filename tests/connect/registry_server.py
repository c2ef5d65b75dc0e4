"""A Confluent Schema Registry of fifty lines, over HTTP on a free loopback port."""

from __future__ import annotations

import base64
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit


class Registry:
    """Register, look up, get. A schema is compatible if it keeps the name of the subject's first one."""

    def __init__(self, user: str = "") -> None:
        self.schemas: list[str] = []  # by id - 1
        self.subjects: dict[str, list[int]] = {}
        self.requests: list[str] = []
        self.status = 0  # what to answer instead, if not 0
        self.authorization = "Basic " + base64.b64encode(user.encode()).decode() if user else ""

    def __enter__(self) -> Registry:
        registry = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.answer(registry.get)

            def do_POST(self) -> None:
                self.answer(registry.post)

            def answer(self, handle: Any) -> None:
                registry.requests.append(f"{self.command} {urlsplit(self.path).path}")
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                document = json.loads(body) if body else {}
                place = [unquote(part) for part in urlsplit(self.path).path.strip("/").split("/")]
                if registry.status:
                    status, said = registry.status, {"error_code": registry.status, "message": "told to say so"}
                elif registry.authorization not in ("", self.headers.get("Authorization")):
                    status, said = 401, {"error_code": 401, "message": "unauthorized"}
                else:
                    status, said = handle(place, document)
                data = json.dumps(said).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: Any) -> None:
                return

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    def get(self, place: list[str], _: Any) -> tuple[int, dict[str, Any]]:
        number = int(place[2])
        if place[:2] == ["schemas", "ids"] and 0 < number <= len(self.schemas):
            return 200, {"schema": self.schemas[number - 1]}
        return 404, {"error_code": 40403, "message": "Schema not found"}

    def post(self, place: list[str], document: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        subject, schema = place[1], document["schema"]
        known = self.subjects.setdefault(subject, [])
        number = next((n for n in known if self.schemas[n - 1] == schema), 0)
        if place[2:] != ["versions"]:
            if not number:
                return 404, {"error_code": 40403, "message": "Schema not found"}
            return 200, {"subject": subject, "id": number, "version": known.index(number) + 1, "schema": schema}
        if known and json.loads(self.schemas[known[0] - 1])["name"] != json.loads(schema)["name"]:
            return 409, {"error_code": 409, "message": "incompatible with an earlier schema"}
        if not number:
            self.schemas.append(schema)
            number = len(self.schemas)
            known.append(number)
        return 200, {"id": number}
