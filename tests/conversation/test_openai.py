"""What `to_openai` gives is taken by OpenAI's chat API, whichever provider or framework wrote the messages."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from dynamiq_memory import Memory, Message, MessageError, to_openai

PNG, PDF, WAV = "iVBORw0KGgo=", "JVBERi0xLjc=", "UklGRg=="
PICTURE = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}}
LINKED = {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}
SOUND = {"type": "input_audio", "input_audio": {"data": WAV, "format": "wav"}}
PAPER = {"type": "file", "file": {"filename": "a.pdf", "file_data": f"data:application/pdf;base64,{PDF}"}}
UPLOADED = {"type": "file", "file": {"file_id": "file-1"}}


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words}


def function(id_: str, name: str, **arguments: Any) -> dict[str, Any]:
    return {"id": id_, "type": "function", "function": {"name": name, "arguments": json.dumps(arguments)}}


def said(role: str, *content: Any, **fields: Any) -> Message:
    return Message(
        role=role, content=content[0] if content and isinstance(content[0], str) else list(content), **fields
    )


# --- content parts -----------------------------------------------------------------------------------------------

ANTHROPIC_PDF = {"type": "base64", "media_type": "application/pdf", "data": PDF}
EQUIVALENTS = [
    # OpenAI's chat API
    (text("hi"), [text("hi")]),
    ({"type": "image_url", "image_url": {"url": "https://example.org/a.png", "detail": "low"}},) * 2,
    (SOUND, [SOUND]),
    (PAPER, [PAPER]),
    (UPLOADED, [UPLOADED]),
    ({**SOUND, "input_audio": {"data": WAV, "format": "x-wav"}}, [SOUND]),
    ({**text("hi"), "prompt_cache_breakpoint": {"mode": "explicit"}},) * 2,
    # OpenAI's Responses API
    ({"type": "input_text", "text": "hi"}, [text("hi")]),
    ({"type": "output_text", "text": "hi", "annotations": []}, [text("hi")]),
    ({"type": "input_image", "image_url": "https://example.org/a.png"}, [LINKED]),
    ({"type": "input_file", "file_id": "file-1"}, [UPLOADED]),
    ({"type": "input_file", "filename": "a.pdf", "file_data": f"data:application/pdf;base64,{PDF}"}, [PAPER]),
    # Anthropic
    ({**text("hi"), "cache_control": {"type": "ephemeral"}, "citations": []}, [text("hi")]),
    ({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}}, [PICTURE]),
    ({"type": "image", "source": {"type": "url", "url": "https://example.org/a.png"}}, [LINKED]),
    ({"type": "document", "title": "a.pdf", "source": ANTHROPIC_PDF}, [PAPER]),
    ({"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "hi"}}, [text("hi")]),
    ({"type": "document", "source": {"type": "content", "content": [text("hi")]}}, [text("hi")]),
    ({"type": "document", "source": {"type": "content", "content": "hi"}}, [text("hi")]),
    ({"type": "search_result", "source": "x", "title": "y", "content": [text("a"), text("b")]}, [text("a"), text("b")]),
    # Gemini
    ({"text": "hi"}, [text("hi")]),
    ({"inlineData": {"mimeType": "image/png", "data": PNG}}, [PICTURE]),
    ({"inline_data": {"mime_type": "audio/wav", "data": WAV}}, [SOUND]),
    ({"inlineData": {"mimeType": "application/pdf", "data": PDF, "displayName": "a.pdf"}}, [PAPER]),
    ({"fileData": {"mimeType": "image/png", "fileUri": "https://example.org/a.png"}}, [LINKED]),
    ({"type": "media", "mime_type": "image/png", "data": PNG}, [PICTURE]),
    # LangChain
    ({"type": "text-plain", "text": "hi", "mime_type": "text/plain"}, [text("hi")]),
    ({"type": "image", "base64": PNG, "mime_type": "image/png"}, [PICTURE]),
    ({"type": "image", "source_type": "url", "url": "https://example.org/a.png"}, [LINKED]),
    ({"type": "image_url", "image_url": "https://example.org/a.png"}, [LINKED]),
    ({"type": "audio", "base64": WAV, "mime_type": "audio/wav"}, [SOUND]),
    ({"type": "file", "source_type": "text", "text": "hi", "mime_type": "text/plain"}, [text("hi")]),
    ({"type": "file", "source_type": "id", "id": "file-1"}, [UPLOADED]),
    ({"type": "file", "base64": PDF, "mime_type": "application/pdf", "filename": "a.pdf"}, [PAPER]),
    ({"type": "non_standard", "value": {"inlineData": {"mimeType": "image/png", "data": PNG}}}, [PICTURE]),
    # LlamaIndex
    ({"block_type": "text", "text": "hi"}, [text("hi")]),
    ({"block_type": "image", "image": PNG.encode(), "image_mimetype": "image/png"}, [PICTURE]),
    ({"block_type": "image", "url": "https://example.org/a.png"}, [LINKED]),
    ({"block_type": "audio", "audio": WAV.encode(), "format": "wav"}, [SOUND]),
    ({"block_type": "document", "data": PDF.encode(), "title": "a.pdf"}, [PAPER]),
    ({"block_type": "citable", "content": [{"block_type": "text", "text": "hi"}]}, [text("hi")]),
    ({"block_type": "citation", "cited_content": {"block_type": "text", "text": "hi"}}, [text("hi")]),
]


@pytest.mark.parametrize(("part", "expected"), EQUIVALENTS, ids=lambda value: f"{value!r:.60}")
def test_a_users_parts_become_those_of_the_api(part, expected):
    expected = expected if isinstance(expected, list) else [expected]
    message = said("user", text("See:"), part)
    assert message.to_openai(strict=True) == {"role": "user", "content": [text("See:"), *expected]}
    assert message.content[1] == part, "the message is not changed"


FOREIGN = [
    {"type": "video", "url": "https://example.org/a.mp4"},
    {"type": "media", "mime_type": "video/mp4", "data": PNG},
    {"type": "media", "mime_type": "image/png", "file_uri": "gs://bucket/a.png"},
    {"type": "input_image", "file_id": "file-1"},
    {"type": "input_file", "file_url": "https://example.org/a.pdf"},
    {"type": "document", "source": {"type": "file", "file_id": "file_011"}},
    {"type": "document", "source": {"type": "url", "url": "https://example.org/a.pdf"}},
    {"type": "audio", "base64": WAV, "mime_type": "audio/ogg"},
    {"type": "container_upload", "file_id": "file_011"},
    {"type": "tool_use", "id": "t", "name": "f", "input": {}},
    {"fileData": {"mimeType": "application/pdf", "fileUri": "gs://bucket/a.pdf"}},
    {"rows": [1, 2], "data": "x"},
    {"type": "search_result", "content": 5},
    {"type": "no such"},
    {"type": 5},
    {},
]
OF_THE_PROVIDER = [
    {"type": "thinking", "thinking": "Hm.", "signature": "x"},
    {"type": "redacted_thinking", "data": "x"},
    {"type": "reasoning", "id": "rs_1", "summary": []},
    {"text": "Hm.", "thought": True},
    {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "x"}},
    {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": []},
    {"type": "web_search_call", "id": "ws_1", "status": "completed"},
    {"type": "image_generation_call", "id": "ig_1", "result": PNG},
    {"type": "server_tool_call", "id": "s", "name": "f", "args": {}},
    {"executableCode": {"language": "PYTHON", "code": "1"}},
    {"block_type": "thinking", "content": "Hm."},
    {"type": "image", "base64": PNG, "mime_type": "image/png"},
    PICTURE,
]


@pytest.mark.parametrize(
    ("role", "part"),
    [
        *(("user", part) for part in FOREIGN),
        *(("assistant", part) for part in OF_THE_PROVIDER),
        ("system", PICTURE),
        ("tool", PICTURE),
        ("user", {"type": "refusal", "refusal": "No."}),
    ],
    ids=lambda value: f"{value!r:.60}",
)
def test_a_part_without_an_equivalent_is_left_out_or_refused(role, part):
    message = said(role, text("See:"), part, id="m-1")
    assert message.to_openai()["content"] == [text("See:")]
    assert said(role, part).to_openai()["content"] == "", "the API refuses an empty list"
    with pytest.raises(MessageError, match=r"content\[1\] of message m-1 is a '.*' part.* role '") as refused:
        message.to_openai(strict=True)
    assert str(part.get("type", part.get("block_type", ""))) in str(refused.value) or part == {"type": 5}


def test_a_refusal_stays_the_assistants():
    refusal = {"type": "refusal", "refusal": "I cannot."}
    assert said("assistant", refusal).to_openai(strict=True)["content"] == [refusal]


@pytest.mark.parametrize("role", ["user", "assistant", "system"])
def test_text_is_passed_on_as_it_is(role):
    message = said(role, "hello")
    assert message.to_openai() == message.to_openai(strict=True) == {"role": role, "content": "hello"}
    assert message.to_openai()["content"] is message.content


def test_data_in_a_tools_result_is_given_as_json():
    message = said("tool", text("2 rows"), {"port": "Ostend"}, tool_call_id="c")
    assert message.to_openai(strict=True)["content"] == [text("2 rows"), text('{"port": "Ostend"}')]


def test_names_have_no_characters_that_the_api_refuses():
    assert said("user", "hi", name="Ann <Lee>").to_openai()["name"] == "Ann_Lee_"
    assert said("user", "hi", name="Åsa-1").to_openai()["name"] == "Åsa-1"


def test_fields_that_do_not_belong_to_the_role_are_left_out():
    assert said("user", "hi", tool_calls=[function("c", "f")], tool_call_id="c").to_openai() == {
        "role": "user",
        "content": "hi",
    }


# --- calls -------------------------------------------------------------------------------------------------------

CALL = function("c1", "look", port="Ostend")


@pytest.mark.parametrize(
    "block",
    [
        {"type": "tool_use", "id": "c1", "name": "look", "input": {"port": "Ostend"}},
        {"type": "function_call", "id": "fc_1", "call_id": "c1", "name": "look", "arguments": '{"port": "Ostend"}'},
        {"type": "tool_call", "id": "c1", "name": "look", "args": {"port": "Ostend"}},
        {"functionCall": {"id": "c1", "name": "look", "args": {"port": "Ostend"}}},
        {"block_type": "tool_call", "tool_call_id": "c1", "tool_name": "look", "tool_kwargs": {"port": "Ostend"}},
    ],
    ids=lambda block: block.get("type", block.get("block_type", "gemini")),
)
def test_calls_that_exist_as_blocks_only_become_tool_calls(block):
    expected = {"role": "assistant", "content": [text("One moment.")], "tool_calls": [CALL]}
    message = said("assistant", text("One moment."), block)
    assert message.to_openai(strict=True) == expected
    assert message.model_copy(update={"tool_calls": [CALL]}).to_openai(strict=True) == expected, "once"


@pytest.mark.parametrize(
    ("block", "call"),
    [
        (
            {"type": "custom_tool_call", "call_id": "c1", "name": "sql", "input": "select 1"},
            {"id": "c1", "type": "custom", "custom": {"name": "sql", "input": "select 1"}},
        ),
        (
            {"type": "shell_call", "call_id": "c1", "action": {"commands": ["ls"]}},
            function("c1", "shell_call", commands=["ls"]),
        ),
        ({"type": "function_call", "call_id": "c1", "name": "f", "arguments": ""}, function("c1", "f")),
        ({"functionCall": {"name": "f"}}, function("f", "f")),
    ],
)
def test_calls_of_other_kinds(block, call):
    assert said("assistant", block).to_openai(strict=True)["tool_calls"] == [call]


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        ({"name": "look", "parameters": {"port": "Ostend"}}, function("look", "look", port="Ostend")),
        ({"id": "c1", "name": "look", "args": {"port": "Ostend"}}, CALL),
        ({"id": "c1", "type": "function", "function": {"name": "look", "arguments": {"port": "Ostend"}}}, CALL),
        ({"call_id": "c1", "name": "look", "arguments": '{"port": "Ostend"}'}, CALL),
        (CALL | {"extra_content": {"google": {}}}, CALL | {"extra_content": {"google": {}}}),
    ],
    ids=["cohere", "langchain", "object", "responses", "more fields"],
)
def test_tool_calls_become_openais(call, expected):
    assert said("assistant", "", tool_calls=[call]).to_openai(strict=True)["tool_calls"] == [expected]


@pytest.mark.parametrize(
    ("name", "accepted"),
    [("files.read:v2 ü", "files_read_v2__"), ("n" * 70, "n" * 64), ("", "_")],
    ids=["characters", "length", "empty"],
)
def test_names_of_tools_are_ones_that_the_api_accepts(name, accepted):
    """Whatever shape the call has; a result without an id, too, names the call as it is named here."""
    custom = {"id": "c", "type": "custom", "custom": {"name": name, "input": "x"}}
    calls = [function("a", name), {"id": "b", "name": name, "args": {}}, custom]
    blocks = [{"type": "custom_tool_call", "call_id": "d", "name": name, "input": "x"}]
    message = said("assistant", *blocks, tool_calls=calls)
    converted = message.to_openai(strict=True)["tool_calls"]
    assert [call[call["type"]]["name"] for call in converted] == [accepted] * 4
    assert calls[0]["function"]["name"] == name, "the message is not changed"
    [called] = said("assistant", "", tool_calls=[{"name": name}]).to_openai()["tool_calls"]
    result = said("tool", "9:40", name=name).to_openai()
    assert called["id"] == result["tool_call_id"] == result["name"] == accepted


RESULTS = [
    ({"type": "tool_result", "tool_use_id": "c1", "content": "9:40"}, "9:40"),
    ({"type": "tool_result", "tool_use_id": "c1", "content": [text("9:40")]}, [text("9:40")]),
    ({"type": "tool_result", "tool_use_id": "c1"}, ""),
    ({"type": "function_call_output", "call_id": "c1", "output": "9:40"}, "9:40"),
    ({"type": "function_call_output", "call_id": "c1", "output": [{"type": "input_text", "text": "x"}]}, [text("x")]),
    ({"type": "mcp_approval_response", "approval_request_id": "c1", "approve": True}, '{"approve": true}'),
    ({"functionResponse": {"id": "c1", "response": {"at": "9:40"}}}, '{"at": "9:40"}'),
]


@pytest.mark.parametrize(("block", "content"), RESULTS, ids=lambda value: f"{value!r:.50}")
def test_a_users_message_that_is_a_result_becomes_one_of_the_tool(block, content):
    expected = {"role": "tool", "content": content, "tool_call_id": "c1"}
    assert said("user", block).to_openai(strict=True) == expected
    assert to_openai([said("user", block)], strict=True) == [expected]


def test_that_a_result_is_an_error_is_left_out_and_stays_stored():
    """The API has no field for it."""
    block = {"type": "tool_result", "tool_use_id": "c1", "content": "no such port", "is_error": True}
    memory = Memory(filters={"user_id": "u", "session_id": "s"})
    memory.add_many([said("user", block)])
    [stored] = memory.get_all()
    assert to_openai([stored], strict=True) == [{"role": "tool", "content": "no such port", "tool_call_id": "c1"}]
    assert stored.content == [block]


@pytest.mark.parametrize(("block", "content"), RESULTS, ids=lambda value: f"{value!r:.50}")
def test_what_the_user_says_beside_results_follows_them(block, content):
    message = said("user", text("Here."), block, {"type": "tool_result", "tool_use_id": "c2", "content": "b"})
    assert to_openai([message], strict=True) == [
        {"role": "tool", "content": content, "tool_call_id": "c1"},
        {"role": "tool", "content": "b", "tool_call_id": "c2"},
        {"role": "user", "content": [text("Here.")]},
    ]
    with pytest.raises(MessageError, match=r"dynamiq_memory.to_openai\(\[message\]\)"):
        message.to_openai(strict=True)
    alone = message.to_openai()
    assert (alone["role"], alone["content"][0], alone["content"][-1]) == ("user", text("Here."), text("b"))


# --- conversations -----------------------------------------------------------------------------------------------


def ids(conversation: list[dict[str, Any]]) -> list[Any]:
    return [
        [call["id"] for call in message["tool_calls"]] if "tool_calls" in message else message["tool_call_id"]
        for message in conversation
        if "tool_calls" in message or message["role"] == "tool"
    ]


def test_a_call_without_an_id_and_its_result_get_the_same():
    """Ollama names no ids and gives the tool's name, Cohere gives the result a new one."""
    for answered in ({"tool_call_id": "look"}, {"tool_call_id": "new", "name": "look"}, {"name": "look"}, {}):
        called = said("assistant", "", tool_calls=[{"name": "look", "parameters": {"n": 1}}])
        conversation = to_openai([said("user", "go"), called, said("tool", "9:40", **answered)], strict=True)
        [[made], result] = ids(conversation)
        assert made == result
        assert made.startswith("call_")
        assert len(made) <= 40, "OpenAI allows no more"


def test_parallel_calls_of_one_tool_are_told_apart():
    """Vertex gives the tool's name as id."""
    calls = [function("look", "look", n=1), function("look", "look", n=2)]
    results = [said("tool", str(n), tool_call_id="look", name="look") for n in (1, 2)]
    conversation = to_openai([said("user", "go"), said("assistant", "", tool_calls=calls), *results])
    [made, *answered] = ids(conversation)
    assert made == answered
    assert len(set(made)) == 2
    assert [message["content"] for message in conversation[2:]] == ["1", "2"]


def test_calls_of_gemini_and_their_results():
    blocks = [{"functionCall": {"name": "look", "args": {"n": n}}} for n in (1, 2)]
    results = [{"functionResponse": {"name": "look", "response": {"n": n}}} for n in (1, 2)]
    conversation = to_openai([said("user", "go"), said("assistant", *blocks), said("user", *results)], strict=True)
    [made, *answered] = ids(conversation)
    assert made == answered
    assert len(set(made)) == 2
    assert [message["content"] for message in conversation[1:]] == ["", '{"n": 1}', '{"n": 2}']


def test_calls_of_openais_responses_in_messages_of_their_own():
    calls = [{"type": "function_call", "call_id": f"c{n}", "name": "f", "arguments": "{}"} for n in (1, 2)]
    outputs = [{"type": "function_call_output", "call_id": f"c{n}", "output": "x"} for n in (1, 2)]
    messages = [said("user", "go"), said("assistant", calls[0]), said("assistant", text("And"), calls[1])]
    assert to_openai([*messages, said("user", *outputs)], strict=True) == [
        {"role": "user", "content": "go"},
        {"role": "assistant", "content": [text("And")], "tool_calls": [function("c1", "f"), function("c2", "f")]},
        {"role": "tool", "content": "x", "tool_call_id": "c1"},
        {"role": "tool", "content": "x", "tool_call_id": "c2"},
    ]


def test_texts_beside_calls_in_several_messages_are_all_kept():
    messages = [said("assistant", words, tool_calls=[function(words, "f")]) for words in ("a", "b")]
    assert to_openai(messages)[0]["content"] == [text("a"), text("b")]


def test_a_message_of_which_nothing_is_left_is_left_out():
    thought = said("assistant", OF_THE_PROVIDER[0])
    conversation = [said("user", "go"), thought, said("assistant", "done")]
    assert to_openai(conversation) == [{"role": "user", "content": "go"}, {"role": "assistant", "content": "done"}]
    with pytest.raises(MessageError, match="'thinking'"):
        to_openai(conversation, strict=True)


def test_other_objects_are_refused():
    with pytest.raises(MessageError, match=r"messages\[1\] is a dict"):
        to_openai([said("user", "go"), {"role": "user", "content": "x"}])


# --- any conversation --------------------------------------------------------------------------------------------


def rounds(provider: str, calls: list[str]) -> list[Message]:
    """A round of calls and results, as a provider's client writes it."""
    names = [(number, f"c{number}", name) for number, name in enumerate(calls)]
    called: list[dict[str, Any]]
    results: list[dict[str, Any]]
    if provider == "anthropic":
        called = [{"type": "tool_use", "id": id_, "name": name, "input": {"n": n}} for n, id_, name in names]
        results = [{"type": "tool_result", "tool_use_id": id_, "content": name} for _, id_, name in names]
    elif provider == "gemini":
        called = [{"functionCall": {"name": name, "args": {"n": n}}} for n, _, name in names]
        results = [{"functionResponse": {"name": name, "response": {"n": n}}} for n, _, name in names]
    elif provider == "responses":
        called = [{"type": "function_call", "call_id": id_, "name": name, "arguments": "{}"} for _, id_, name in names]
        results = [{"type": "function_call_output", "call_id": id_, "output": name} for _, id_, name in names]
        return [*(said("assistant", call) for call in called), said("user", *results)]
    else:
        own = {"openai": lambda _, id_, name: function(id_, name), "vertex": lambda _, __, name: function(name, name)}
        make = own.get(provider, lambda n, _, name: {"name": name, "parameters": {"n": n}})
        answered = {"openai": lambda id_, _: id_, "cohere": lambda id_, _: f"new {id_}"}
        answer = answered.get(provider, lambda _, name: name)
        tools = [said("tool", name, tool_call_id=answer(id_, name), name=name) for _, id_, name in names]
        return [said("assistant", "", tool_calls=[make(*each) for each in names]), *tools]
    return [said("assistant", *called), said("user", *results)]


PROVIDERS = ["openai", "responses", "anthropic", "gemini", "vertex", "ollama", "cohere"]
ROUND = st.builds(
    rounds, st.sampled_from(PROVIDERS), st.lists(st.sampled_from(["look", "book"]), min_size=1, max_size=3)
)
QUESTION = st.sampled_from(
    [said("user", "go"), said("user", *FOREIGN[:3], text("go")), said("user", EQUIVALENTS[15][0])]
)
ANSWER = st.sampled_from([said("assistant", "done"), said("assistant", *OF_THE_PROVIDER[:5], text("done"))])
TURN = st.builds(
    lambda question, between, answer: [question, *(message for each in between for message in each), answer],
    QUESTION,
    st.lists(ROUND, max_size=3),
    ANSWER,
)


def with_ids_of_their_own(turns: list[list[Message]]) -> list[list[Message]]:
    count = iter(range(10_000))
    return [[message.model_copy(update={"id": str(next(count))}) for message in turn] for turn in turns]


def check(conversation: list[dict[str, Any]]) -> None:
    """Each call is followed by its results, in the order of the calls, and parts are those of the role."""
    accepted: dict[str, set[str]] = {
        "user": {"text", "image_url", "input_audio", "file"},
        "assistant": {"text", "refusal"},
        "tool": {"text"},
    }
    waiting: list[str] = []
    for message in conversation:
        assert (message["role"] == "tool") == bool(waiting)
        if message["role"] == "tool":
            assert message["tool_call_id"] == waiting.pop(0)
        calls = message.get("tool_calls", [])
        waiting += [call["id"] for call in calls]
        assert len(set(waiting)) == len(waiting)
        assert all(isinstance(json.loads(call["function"]["arguments"]), dict) for call in calls)
        content = message["content"]
        assert content or calls or message["role"] == "tool"
        assert isinstance(content, str) or {part["type"] for part in content} <= accepted[message["role"]]
    assert not waiting


@given(st.lists(TURN, min_size=1, max_size=4).map(with_ids_of_their_own))
def test_any_conversation_is_one_that_the_api_takes(turns):
    memory = Memory(filters={"user_id": "u", "session_id": "s"}, max_tokens=None)
    memory.add_many([message for turn in turns for message in turn])
    stored = memory.get_agent_conversation()
    converted = to_openai(stored)
    check(converted)
    assert len([message for message in converted if message["role"] == "user"]) == len(turns)
    last = to_openai(stored[-len(turns[-1]) :])
    assert converted[-len(last) :] == last, "what is converted does not depend on the turns before"


def test_conversations_have_the_types_of_openais_client():
    chat = pytest.importorskip("openai.types.chat")
    users = said(
        "user", *(each for _, parts in EQUIVALENTS for each in (parts if isinstance(parts, list) else [parts]))
    )
    called = [message for provider in PROVIDERS for message in rounds(provider, ["look", "book"])]
    converted = to_openai([said("system", "Be brief."), users, *called, said("assistant", text("done"))], strict=True)
    TypeAdapter(list[chat.ChatCompletionMessageParam]).validate_python(converted)
    # The type of a message has iterables, which pydantic does not look into.
    TypeAdapter(list[chat.ChatCompletionContentPartParam]).validate_python(converted[1]["content"])
    calls = [call for message in converted for call in message.get("tool_calls", [])]
    assert len(calls) == 2 * len(PROVIDERS)
    TypeAdapter(list[chat.ChatCompletionMessageToolCallUnionParam]).validate_python(calls)
