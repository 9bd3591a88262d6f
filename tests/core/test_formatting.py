"""Conversations as text."""

from __future__ import annotations

from xml.etree import ElementTree as ET

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dynamiq_memory import InvalidArgumentError, Memory, Message
from dynamiq_memory.formatting import FormatType, format_messages

CALL = {"id": "c", "type": "function", "function": {"name": "look", "arguments": '{"at": "<x>"}'}}
FLAT_CALL = {"id": "d", "name": "see", "arguments": {"at": "漢"}}
TALK = [
    Message(role="user", content="Hi\nthere"),
    Message(role="assistant", content="", tool_calls=[CALL, FLAT_CALL]),
    Message(role="tool", content="fine", tool_call_id="c"),
    Message(role="user", content=[{"type": "text", "text": "a"}, {"type": "image_url"}, {"type": "text", "text": "b"}]),
]


def test_plain():
    assert format_messages(TALK) == (
        'user: Hi\nthere\nassistant: [calls look({"at": "<x>"})] [calls see({"at": "漢"})]\ntool: fine\nuser: a\nb'
    )
    assert format_messages([]) == ""


def test_markdown():
    assert format_messages(TALK, "markdown").startswith("**user:** Hi\nthere\n**assistant:** [calls look(")


def parsed(text):
    return [(e.find("role").text, e.find("content").text or "") for e in ET.fromstring(text)]


def test_xml():
    assert parsed(format_messages([], FormatType.XML)) == []
    assert parsed(format_messages(TALK, "xml")) == [
        ("user", "Hi\nthere"),
        ("assistant", '[calls look({"at": "<x>"})] [calls see({"at": "漢"})]'),
        ("tool", "fine"),
        ("user", "a\nb"),
    ]


def allowed(character):
    """XML 1.0, production 2."""
    code = ord(character)
    return code in (9, 10, 13) or 0x20 <= code <= 0xD7FF or 0xE000 <= code <= 0xFFFD or code >= 0x10000


@given(st.lists(st.text(st.characters(exclude_characters="\r")), max_size=4))
@example(["]]>", "<![CDATA[", "&amp;", "</content>", "\x00\x1f\ud800\ufffe\uffff\x7f", "<!--", "\U0010ffff", "\t\n "])
def test_xml_reads_back(contents):
    messages = [Message(role="assistant", content=[{"type": "text", "text": text}]) for text in contents]
    expected = ["".join(c if allowed(c) else "\ufffd" for c in text) for text in contents]
    assert parsed(format_messages(messages, "xml")) == [("assistant", text) for text in expected]


@pytest.mark.parametrize("text", ["a\r\nb", "a\rb"])
def test_a_carriage_return_survives_xml(text):
    """A parser turns a bare one into a line feed (XML 1.0, section 2.11), unless it is written &#13;."""
    assert parsed(format_messages([Message(role="user", content=text)], "xml")) == [("user", text)]


def test_arguments_and_names_are_escaped_too():
    call = {"id": "c", "function": {"name": "</content>&", "arguments": {"k": "<b>"}}}
    (message,) = parsed(format_messages([Message(role="assistant", tool_calls=[call])], "xml"))
    assert message == ("assistant", '[calls </content>&({"k": "<b>"})]')


@pytest.mark.parametrize("kind", ["html", "", None, "XML"])
def test_an_unknown_format(store, kind):
    memory = Memory(backend=store)
    for call in (
        lambda: memory.get_all_messages_as_string(kind),
        lambda: memory.get_search_results_as_string("x", format_type=kind),
    ):
        with pytest.raises(InvalidArgumentError, match=r"format_type.*plain, markdown, xml"):
            call()


def test_through_memory(store):
    memory = Memory(backend=store, filters={"user_id": "u"})
    memory.add("user", "apples & pears")
    memory.add("assistant", "plums")
    memory.add("user", "apples of another", {"user_id": "v"})
    assert memory.get_all_messages_as_string() == "user: apples & pears\nassistant: plums"
    assert memory.get_search_results_as_string("apples", format_type="markdown") == "**user:** apples & pears"
    assert parsed(memory.get_all_messages_as_string("xml"))[0] == ("user", "apples & pears")
