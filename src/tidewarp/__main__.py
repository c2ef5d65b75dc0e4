"""The command ``tidewarp``, which is also ``python -m tidewarp``: a frame around ``cli`` for the time until it is loaded."""

from __future__ import annotations

import signal
from types import FrameType

__all__ = ["main"]


class _HeldInterrupt:
    """Keeps a SIGINT that comes while modules are loaded, where it would end the process with a traceback."""

    def __init__(self) -> None:
        self._came = False
        self._is_ours = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # a shell may have it ignored
        if self._is_ours:
            signal.signal(signal.SIGINT, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._came = True

    def release(self) -> None:
        """From here on it raises KeyboardInterrupt again; now, if one came."""
        if self._is_ours:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        if self._came:
            raise KeyboardInterrupt


def main() -> int:
    """Run the command that the process's arguments name; its exit code."""
    held = _HeldInterrupt()
    from tidewarp import cli

    return cli.main(ready=held.release)


if __name__ == "__main__":
    raise SystemExit(main())
