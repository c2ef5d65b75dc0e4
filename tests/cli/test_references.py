"""The beginning of a reference: it means the one artifact whose text begins so, or nothing."""

from __future__ import annotations

import re
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidewarp.cli.store.references import PREFIX_DIGITS_MIN, find_reference, find_references
from tidewarp.codec.references import SHA256, Reference
from tidewarp.errors import NotFound, OperatorError

# Of eleven digits all references have the first ten in common, or differ there in a few: so prefixes collide.
digests = st.builds(
    lambda head, tail: bytes([1, 2, 3, head]) + bytes([tail]) * 28,
    st.sampled_from([0, 1, 15, 16, 255]),
    st.integers(0, 255),
)
references = st.builds(Reference, st.just(SHA256), digests)


WRITTEN = re.compile("[0-9a-f]{12,68}")


class Shown(NamedTuple):
    """As much of a view as is asked."""

    showing: frozenset[Reference]
    hiding: frozenset[Reference]

    def visible(self):
        return sorted(self.showing)

    def hidden(self):
        return sorted(self.hiding)

    def is_visible(self, ref):
        return ref in self.showing

    def is_hidden(self, ref):
        return ref in self.hiding


@st.composite
def views(draw):
    known = draw(st.frozensets(references, max_size=12))
    hiding = draw(st.frozensets(st.sampled_from(sorted(known)), max_size=4)) if known else frozenset()
    return Shown(known - hiding, hiding)


@given(views(), references, st.integers(PREFIX_DIGITS_MIN, 68), st.booleans())
def test_it_is_found_if_it_alone_begins_so(view, ref, digits, hidden):
    """As a search through all of them says; what is hidden counts, and is given on request."""
    text = ref.hex()[:digits]
    meant = [one for one in view.showing | view.hiding if one.hex().startswith(text)]
    if not meant:
        with pytest.raises(NotFound, match=text):
            find_reference(view, text, hidden=hidden)
    elif len(meant) > 1:
        with pytest.raises(OperatorError, match=f"{len(meant)} references begin so"):
            find_reference(view, text, hidden=hidden)
    elif meant[0] in view.hiding and not hidden:
        with pytest.raises(NotFound, match="a tombstone hides it"):
            find_reference(view, text)
    else:
        assert find_reference(view, text, hidden=hidden) == meant[0]


@given(
    st.text(alphabet="0123456789abcdefABCDEFgx./\0 é", max_size=140).filter(lambda text: not WRITTEN.fullmatch(text))
)
def test_what_is_no_writing_of_a_reference_is_not_looked_up(text):
    """It is refused by its form, whatever is in the store."""
    with pytest.raises(OperatorError) as refused:
        find_reference(None, text, hidden=True)
    assert not isinstance(refused.value, NotFound)


def test_each_of_several():
    """In their order, repetitions too."""
    refs = [Reference(SHA256, bytes([n]) * 32) for n in (3, 1)]
    view = Shown(frozenset(refs), frozenset())
    asked = (refs[0].hex(), refs[1].hex()[:12], refs[0].hex()[:20])
    assert find_references(view, asked) == [refs[0], refs[1], refs[0]]
