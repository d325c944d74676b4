"""Arbitrary JSON texts, in spellings that a parser does not keep."""

from __future__ import annotations

from hypothesis import strategies as st

SPACE = st.sampled_from(["", "", "", " ", "\t", "\n", "\r\n"])

NUMBERS = st.one_of(
    st.from_regex(r"-?(0|[1-9][0-9]{0,30})(\.[0-9]{1,20})?([eE][+-]?[0-9]{1,4})?", fullmatch=True),
    st.sampled_from(["1.10", "1e400", "-1E+400", "-0", "0.0", "12345678901234567890.5", "9" * 5000]),
)

PIECES = st.one_of(
    st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters='"\\'), max_size=5),
    st.sampled_from([r"\/", r"\ud800", r"\udc00\ud800", r"\u0041", r"\n", r"\\", r"\"", "\u2028", "\x85", "\x7f"]),
)

STRINGS = st.lists(PIECES, max_size=4).map(lambda pieces: f'"{"".join(pieces)}"')

KEYS = st.one_of(STRINGS, st.sampled_from(['"type"', '"payload"', r'"\u0074ype"']))


@st.composite
def _spaced(draw: st.DrawFn, value: st.SearchStrategy[str]) -> str:
    return draw(SPACE) + draw(value) + draw(SPACE)


def _array(values: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.lists(_spaced(values), max_size=4).map(lambda items: f"[{','.join(items)}]")


def _object(values: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    member = st.tuples(_spaced(KEYS), _spaced(values)).map(":".join)
    return st.lists(member, max_size=4).map(lambda items: f"{{{','.join(items)}}}")


TEXTS = st.recursive(
    st.one_of(NUMBERS, STRINGS, st.sampled_from(["true", "false", "null", "[]", "{}", "{ }"])),
    lambda values: st.one_of(_array(values), _object(values)),
    max_leaves=8,
)
"""JSON texts without white space around them: with it, they would not be the payload, but part of the envelope."""
