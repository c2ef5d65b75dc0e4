"""References as people give them: whole, or as much of the beginning as tells one from the others."""

from __future__ import annotations

from bisect import bisect_left

from tidewarp.codec.references import SHA256, Reference
from tidewarp.errors import CodecError, NotFound, OperatorError
from tidewarp.store import Store
from tidewarp.store.fold import View
from tidewarp.store.speaking import ADDS
from tidewarp.store.subjects import told

__all__ = ["PREFIX_DIGITS_MIN", "find_reference", "find_references"]

PREFIX_DIGITS_MIN = 12
_WHOLE_DIGITS = 68  # of SHA-256, the one hash of artifacts that are here
_SHOWN = 3  # of the references that a prefix may mean


def find_reference(
    view: View, text: str, *, hidden: bool = False, absent: bool = False, store: Store | None = None
) -> Reference:
    """The one artifact in ``view`` whose reference is, or begins with, ``text``.

    Args:
        view: where to look.
        text: lower-case hexadecimal digits, at least 12; looked at before anything is looked up.
        hidden: what a tombstone hides is found too.
        absent: a whole reference may be of what no record here names, if it is of the hash that artifacts have.
        store: of the view; of what a record there names that does not count, the error says so.

    Raises:
        OperatorError: no digits, too few, or the beginning of more than one.
        NotFound: no artifact here begins so, none that is visible, or none that counts.
    """
    if len(text) == _WHOLE_DIGITS:
        ref = _whole(text)
        if not view.is_visible(ref) and not view.is_hidden(ref):
            if absent and ref.hash_id == SHA256:
                return ref
            _refuse_uncounted(view, text, store)
            raise NotFound(text, "no record here names it", "check the reference; pull the site that has it")
    else:
        ref = _beginning(view, text, store)
    if not hidden and view.is_hidden(ref):
        raise NotFound(ref.hex(), "a tombstone hides it", "say --include-hidden, or ask who hid it")
    return ref


def find_references(view: View, texts: tuple[str, ...], store: Store | None = None) -> list[Reference]:
    """As :func:`find_reference`, of each, and visible."""
    return [find_reference(view, text, store=store) for text in texts]


def _whole(text: str) -> Reference:
    try:
        return Reference.parse(text)
    except CodecError as error:
        raise OperatorError(error.value, error.rule, error.action) from None


def _beginning(view: View, text: str, store: Store | None) -> Reference:
    if not PREFIX_DIGITS_MIN <= len(text) < _WHOLE_DIGITS or any(one not in "0123456789abcdef" for one in text):
        raise OperatorError(
            f"{text[:80]!r}",
            f"a reference has {_WHOLE_DIGITS} lower-case hexadecimal digits; its first {PREFIX_DIGITS_MIN} or more will do",
            "give it as it was printed",
        )
    found = [*_beginning_so(view.visible(), text), *_beginning_so(view.hidden(), text)]
    if not found:
        _refuse_uncounted(view, text, store)
        raise NotFound(text, "no reference here begins so", "check the digits; pull the site that has it")
    if len(found) > 1:
        shown = ", ".join(ref.hex() for ref in found[:_SHOWN]) + (", …" if len(found) > _SHOWN else "")
        raise OperatorError(text, f"{len(found)} references begin so: {shown}", "give more digits")
    return found[0]


def _refuse_uncounted(view: View, text: str, store: Store | None) -> None:
    """Raise NotFound where a record names what begins so, and does not count. Reads all records, for an error alone."""
    if store is None:
        return
    for domain in store.domains():
        for record in store.records(domain.id):
            said = told(record.header, record.body)
            if said is None or record.header.kind not in ADDS or not said.ref.hex().startswith(text):
                continue
            what = f"domain {domain.id.hex()}" if view.admission.standing(domain.id) is None else "that record"
            raise NotFound(
                text,
                f"record {record.header.seq} of domain {domain.id.hex()} names it, and the policy in force does not count {what}",
                "see tidewarp peer policy DIR; tidewarp peer trust DIR NAME --key HEX lets a domain count",
            )


def _beginning_so(ascending: list[Reference], text: str) -> list[Reference]:
    first = bisect_left(ascending, text, key=Reference.hex)
    end = bisect_left(ascending, text + "g", key=Reference.hex)  # behind the last digit, f
    return ascending[first:end]
