"""Untrusted text never steers a terminal."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpo_telemetry.text import printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("loss 0.69 Ω ✓ 学習", "loss 0.69 Ω ✓ 学習"),
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07after", "after"),
        ("\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("a\x1b[2J\x1b[Hb", "ab"),
        ("\x1bcreset", "creset"),
        ("bell\x07 back\x08 del\x7f c1\x9b31m", "bell  back  del  c1 31m"),
        ("one\r\ntwo\nthree", "one  two three"),
        ("a\tb", "a   b"),
        ("file\u202egnp.exe", "file gnp.exe"),
        ("\u2066isolate\u2069 \u061c\u200f", " isolate    "),
        ("line\u2028sep\u2029par", "line sep par"),
        ("name\udcff", "name "),
        ("torn \x1b[3", "torn  [3"),
    ],
)
def test_only_plain_text_is_left(text: str, shown: str) -> None:
    assert printable(text).strip() == shown.strip()


def test_long_text_is_cut() -> None:
    assert printable("x" * 5000, limit=10) == "x" * 9 + "…"
    assert printable("x" * 10, limit=10) == "x" * 10


@given(st.text(st.characters()))
def test_no_text_leaves_a_control_character_or_cannot_be_encoded(text: str) -> None:
    shown = printable(text)
    assert not [c for c in shown if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp")]
    assert not set(shown) & set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u061c\u200e\u200f")
    assert len(shown) <= 2000
    shown.encode()
