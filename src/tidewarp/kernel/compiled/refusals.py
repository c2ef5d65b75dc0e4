"""What the compiled tier refuses before Numba is asked."""

from __future__ import annotations

from typing import NoReturn

from tidewarp.errors import NotCompilable
from tidewarp.kernel.lp import form_of_lp
from tidewarp.kernel.model import Model

__all__ = ["check_compilable", "refusal", "refuse"]

MESSAGE_BYTES_MAX = 2**16


def refusal(where: str, construct: str, rule: str) -> NotCompilable:
    """The error about a construct at a place."""
    return NotCompilable(f"{where}: {construct}", rule, "write it otherwise, or run the model with tier='python'")


def refuse(where: str, construct: str, rule: str) -> NoReturn:
    """Raise it."""
    raise refusal(where, construct, rule)


def check_compilable(model: Model) -> None:
    """Refuse what no handler's text could mend.

    Raises:
        NotCompilable: fields of variable length, arrays of b1, messages above 64 KiB, saving policies of the Python tier.
    """
    model.freeze()
    for form in [form_of_lp(cls) for cls in model.classes] + list(model.message_forms):
        for field in form.fields:
            if not field.kind.code:
                refuse(form.name, f"{field.name}: Bytes", "compiled rows and messages have a fixed length")
            if field.shape and field.kind.code == "?":
                refuse(form.name, f"{field.name}: Array[b1, ...]", "Numba has no array of b1 in a record: use u8")
    for form in model.message_forms:
        if form.size > MESSAGE_BYTES_MAX:
            refuse(form.name, f"{form.size} bytes", f"a compiled message has at most {MESSAGE_BYTES_MAX}")
    for cls in model.classes:
        if cls.saving in ("undo", "custom"):
            refuse(cls.__name__, f"saving={cls.saving!r}", "it belongs to the Python tier")
