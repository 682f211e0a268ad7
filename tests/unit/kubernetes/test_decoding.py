"""JSON that decoders refuse: what is left of it, and what is said."""

from __future__ import annotations

import json
import logging

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenantry.adapters.kubernetes.decoding import DEEPEST, LEFT_OUT, decode, readable

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(JSON, st.booleans())
def test_what_every_decoder_reads_stays_as_it_is(value: object, ascii_only: bool) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only).encode()
    assert readable(text) == text


@pytest.mark.parametrize("opening", [b'{"a":', b"["])
@pytest.mark.parametrize("beside", [b'"\\"[{\\\\"', b"[]", b'{"x":[1]}'])
def test_what_is_too_deep_is_left_out_and_its_neighbours_stay(opening: bytes, beside: bytes) -> None:
    closing = b"}" if opening[:1] == b"{" else b"]"
    deep = opening * 5000 + b"1" + closing * 5000
    answer = decode(b'{"first":%b,"deep":%b,"last":%b}' % (beside, deep, beside))
    assert answer["first"] == answer["last"] == orjson.loads(beside)
    found, levels = answer["deep"], 1
    while found != LEFT_OUT:
        found, levels = found["a" if isinstance(found, dict) else 0], levels + 1
    assert levels == DEEPEST


def test_as_deep_as_decoders_go_nothing_is_left_out() -> None:
    found, levels = decode(b"[" * 1000 + b"]" * 1000), 1
    while found:
        found, levels = found[0], levels + 1
    assert levels == 1000


@pytest.mark.parametrize(
    ("text", "read"),
    [
        (rb'"\ud83d"', "\ufffd"),
        (rb'"\uDE00x"', "\ufffdx"),
        (rb'"\ud83d\ude00"', "\U0001f600"),
        (rb'"\ud83d\ud83d\ude00"', "\ufffd\U0001f600"),
        (rb'"\\ud83d \ud83d"', "\\ud83d \ufffd"),
        (rb'"\\\ud83d"', "\\\ufffd"),
    ],
)
def test_half_a_character_is_none(text: bytes, read: str) -> None:
    assert decode(text) == read


def test_the_objects_are_named_once_for_each_that_is_not_whole(caplog: pytest.LogCaptureFixture) -> None:
    deep = b"[" * 2000 + b"]" * 2000
    item = b'{"metadata":{"name":"%b","namespace":"n"},"data":%b}'
    items = b",".join([item % (b"bad", deep), item % (b"good", b"{}"), item % (b"worse", deep)])
    with caplog.at_level(logging.WARNING):
        decode(b'{"kind":"ControllerRevisionList","items":[%b]}' % items)
        decode(b'{"type":"ADDED","object":{"kind":"Odd","metadata":{"name":"it"},"data":%b}}' % deep)
    assert [message.partition(" is read")[0] for message in caplog.messages] == [
        "ControllerRevision n/bad",
        "ControllerRevision n/worse",
        "Odd it",
    ]


@pytest.mark.parametrize("text", [b"<html>", b'{"a":', b'{"a":[}', b"[" * 2000, b'"' + b"\\", b"1e400"])
def test_what_is_no_json_is_refused(text: bytes) -> None:
    with pytest.raises(ValueError, match=r"line 1 column"):
        decode(text)
