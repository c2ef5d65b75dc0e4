"""Outputs to files."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

from tidewarp.compat.dynamic_des.connectors.egress.network import NetworkEgress
from tidewarp.connect.contract import Sink
from tidewarp.connect.sinks import jsonl, parquet
from tidewarp.errors import OperatorError

__all__ = ["JsonlStorageEgress", "ParquetStorageEgress"]

_ROOT = os.path.abspath(os.sep)


class _StorageEgress(NetworkEgress):
    """Writes to ``default_path``, or where ``path_router`` says of a record; None drops it.

    A router that raises is not asked further for that record, which goes to ``default_path`` (``misrouted`` counts).
    """

    suffix: str

    def __init__(
        self,
        default_path: str | None = None,
        filesystem: Any = None,
        path_router: Callable[[dict[str, Any]], str | None] | None = None,
    ) -> None:
        self.default_path, self.filesystem, self.path_router = default_path, filesystem, path_router
        self.misrouted = 0
        if default_path is None and (path_router is None or not self._is_local):
            rule = "it writes somewhere; a router's paths on another file system are below default_path"
            raise OperatorError(f"{type(self).__name__}()", rule, "give default_path")

    @property
    def _is_local(self) -> bool:
        return self.filesystem is None or type(self.filesystem).__name__ == "LocalFileSystem"

    def _routed(self) -> Callable[[Mapping[str, Any]], str | None]:
        """Record -> path below the root of this machine's files, or below ``default_path`` of another file system."""
        ask, fallback = self.path_router, self.default_path or f"unrouted{self.suffix}"

        def route(payload: Mapping[str, Any]) -> str | None:
            try:
                path = None if ask is None else ask(dict(payload))
            except Exception:  # anybody's code: a record that it does not know ends no run
                self.misrouted += 1
                path = fallback
            return None if path is None else self._below(path)

        return route

    def _below(self, path: str) -> str:
        if not self._is_local:
            return path.removeprefix(f"{self.default_path}/")
        return os.path.relpath(os.path.abspath(path), _ROOT).replace(os.sep, "/")


class JsonlStorageEgress(_StorageEgress):
    """A file of JSON lines for each path, on this machine; each record is there once."""

    suffix = ".jsonl"

    def sink(self, name: str) -> Sink:
        """A JSONL sink. Its lines have the fields of ``event_payload``, of which the published ones are a part."""
        if not self._is_local:
            rule = "JSON lines are appended, which no object store does"
            raise OperatorError("JsonlStorageEgress(filesystem=...)", rule, "use ParquetStorageEgress there")
        if self.path_router is None:
            return jsonl(str(self.default_path), name=name)
        return jsonl(os.path.join(_ROOT, "unrouted.jsonl"), router=self._routed(), name=name)


class ParquetStorageEgress(_StorageEgress):
    """A folder of Parquet parts for each path, on this machine or in ``filesystem``; each record is there once."""

    suffix = ".parquet"

    def sink(self, name: str) -> Sink:
        """A Parquet sink. Its columns are the fields of ``event_payload``, of which the published ones are a part."""
        if self.path_router is None:
            return parquet(str(self.default_path), filesystem=self.filesystem, name=name)
        root = _ROOT if self._is_local else str(self.default_path)
        return parquet(root, router=self._routed(), filesystem=self.filesystem, name=name)
