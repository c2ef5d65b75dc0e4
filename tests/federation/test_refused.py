"""What a peer says where it refuses, as it is shown to people."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidewarp.federation.documents import RefusalDocument, encode_json
from tidewarp.federation.messages import HttpResponse
from tidewarp.federation.pull.steps import Interrupted, Unanswered, body_of
from tidewarp.federation.refused import told

WORDS = st.text(max_size=2_000)


def test_value_rule_and_next_action() -> None:
    """All three, behind the status."""
    body = encode_json(RefusalDocument("record 2", "its body does not have its hash", "ask another peer"))
    assert told(HttpResponse(500, {}, body)) == "500: record 2: its body does not have its hash; ask another peer"


@pytest.mark.parametrize(("status", "form"), [(500, Interrupted), (404, Unanswered)])
def test_a_pull_that_ends_so_says_it(status: int, form: type[Exception]) -> None:
    """A peer whose own record 2 is damaged: who pulls reads that, and whom to ask."""
    body = encode_json(RefusalDocument("record 2", "its body does not have its hash", "ask another peer"))
    with pytest.raises(form, match=f"the peer answered {status}: record 2: its body .*; ask another peer"):
        body_of(HttpResponse(status, {}, body))


def test_a_body_that_is_no_refusal() -> None:
    """The status says something all the same."""
    assert told(HttpResponse(502, {}, b"<html>\x1b[2J")) == "502"


def test_a_long_text_is_cut() -> None:
    """And one sees that it was."""
    assert told(HttpResponse(500, {}, encode_json(RefusalDocument("a" * 301, "", "")))) == f"500: {'a' * 300}…: ; "
    assert told(HttpResponse(500, {}, encode_json(RefusalDocument("a" * 300, "", "")))) == f"500: {'a' * 300}: ; "


@given(WORDS, WORDS, WORDS)
def test_nothing_of_it_moves_a_cursor(value: str, rule: str, action: str) -> None:
    """Whatever a stranger writes: one line, of a bounded length, printable."""
    said = told(HttpResponse(500, {}, encode_json(RefusalDocument(value, rule, action))))
    assert said.isprintable()
    assert len(said) <= 3 * 301 + 9
