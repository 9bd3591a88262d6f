"""A conversation whose calls and results are blocks of content, in each provider's form, and what a reader must see."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from dynamiq_memory import Message
from dynamiq_memory._blocks import results_in

Part = dict[str, Any]

ARGUMENTS = {"q": "x"}
"""The arguments of each call; free text is given as `input`."""


class Form(NamedTuple):
    """How a provider writes a call and its result.

    Attributes:
        call: Makes the block of an id and a tool's name.
        result: Makes the block of an id, a tool's name and a text.
        arguments: The arguments of the call, as a reader sees them.
        has_ids: Whether the provider gives ids.
    """

    call: Callable[[str, str], Part]
    result: Callable[[str, str, str], Part]
    arguments: Part = ARGUMENTS
    has_ids: bool = True


FORMS: dict[str, Form] = {
    "anthropic": Form(
        lambda id_, name: {"type": "tool_use", "id": id_, "name": name, "input": ARGUMENTS},
        lambda id_, _, text: {"type": "tool_result", "tool_use_id": id_, "content": text},
    ),
    "anthropic, result in parts": Form(
        lambda id_, name: {"type": "tool_use", "id": id_, "name": name, "input": ARGUMENTS},
        lambda id_, _, text: {"type": "tool_result", "tool_use_id": id_, "content": [{"type": "text", "text": text}]},
    ),
    "openai responses": Form(
        lambda id_, name: {"type": "function_call", "call_id": id_, "name": name, "arguments": '{"q": "x"}'},
        lambda id_, _, text: {"type": "function_call_output", "call_id": id_, "output": text},
    ),
    "openai custom tools": Form(
        lambda id_, name: {"type": "custom_tool_call", "call_id": id_, "name": name, "input": "x"},
        lambda id_, _, text: {"type": "custom_tool_call_output", "call_id": id_, "output": text},
        {"input": "x"},
    ),
    "gemini": Form(
        lambda _, name: {"functionCall": {"name": name, "args": ARGUMENTS}},
        lambda _, name, text: {"functionResponse": {"name": name, "response": text}},
        has_ids=False,
    ),
    "gemini in python": Form(
        lambda id_, name: {"function_call": {"id": id_, "name": name, "args": ARGUMENTS}},
        lambda id_, name, text: {"function_response": {"id": id_, "name": name, "response": text}},
    ),
}

Seen = tuple[Any, ...]
"""A message as a reader sees it: role, text, calls as id, name and arguments, and id and name of the call answered."""

QUESTION, CALLING, FIRST, SECOND, WORDS, ANSWER = (
    "Which bus?",
    "Looking.",
    "At 9:40.",
    "At 10:10.",
    "Hurry!",
    "The 9:40.",
)


def conversation(form: Form) -> list[tuple[str, str | list[Part]]]:
    """Roles and contents: a question, two calls, their results with the user's words beside them, and an answer."""
    calls = [{"type": "text", "text": CALLING}, form.call("c-1", "look"), form.call("c-2", "book")]
    results = [form.result("c-1", "look", FIRST), form.result("c-2", "book", SECOND), {"type": "text", "text": WORDS}]
    return [("user", QUESTION), ("assistant", calls), ("user", results), ("assistant", ANSWER)]


def messages(form: Form) -> list[Message]:
    """The conversation as messages."""
    return [Message(role=role, content=content) for role, content in conversation(form)]


def expected(form: Form) -> list[Seen]:
    """The conversation as a reader must see it, with ids as in `with_known_ids`."""
    return [
        ("user", QUESTION, [], None, None),
        ("assistant", CALLING, [("c-1", "look", form.arguments), ("c-2", "book", form.arguments)], None, None),
        ("tool", FIRST, [], "c-1", "look"),
        ("tool", SECOND, [], "c-2", "book"),
        ("user", WORDS, [], None, None),
        ("assistant", ANSWER, [], None, None),
    ]


def with_known_ids(seen: Sequence[Seen], form: Form) -> list[Seen]:
    """What a reader sees, with the ids c-1 and c-2 instead of those made where the provider gives none."""
    if form.has_ids:
        return list(seen)
    made = [id_ for _, _, calls, _, _ in seen for id_, _, _ in calls]
    assert all(made), "each call has an id"
    assert len(set(made)) == len(made), "and no other call has it"
    known = {id_: f"c-{number}" for number, id_ in enumerate(made, 1)}
    return [
        (role, text, [(known[id_], *rest) for id_, *rest in calls], known.get(answered, answered), name)
        for role, text, calls, answered, name in seen
    ]


def texts_of(message: Message) -> list[str]:
    """The texts of a message and of the results in it."""
    if isinstance(message.content, str):
        return [message.content]
    results = [result.content for result in results_in(message.content)]
    texts = [result["output"] if isinstance(result, dict) else result for result in results]
    return [*texts, *(part["text"] for part in message.content if "text" in part)]
