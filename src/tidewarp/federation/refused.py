"""What a peer says where it answers with a status other than the one that was hoped for, as people may read it.

It is a stranger's text: of each part 300 characters are shown, and of these none that would move a cursor or turn a line.
"""

from __future__ import annotations

from tidewarp.errors import CodecError
from tidewarp.federation.documents import RefusalDocument, decode_json
from tidewarp.federation.messages import HttpResponse

__all__ = ["told"]

_SHOWN = 300


def told(answer: HttpResponse) -> str:
    """The status, and the refusal's value, rule and next action, if the body is a refusal."""
    try:
        document = decode_json(answer.whole, RefusalDocument)
    except CodecError:
        return str(answer.status)
    return f"{answer.status}: {_shown(document.error)}: {_shown(document.rule)}; {_shown(document.next)}"


def _shown(text: str) -> str:
    plain = "".join(one for one in text[: _SHOWN + 1] if one.isprintable())
    return plain if len(text) <= _SHOWN else f"{plain[:_SHOWN]}…"
