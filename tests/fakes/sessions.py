"""Sessions as agents store them, for hypothesis: whole and broken turns, calls in each provider's form."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from hypothesis import Phase, settings
from hypothesis import strategies as st

from dynamiq_memory import Message
from dynamiq_memory.testing.providers import Provider

TOOLS = ["look", "book", "send"]
WORDS = ["apple", "pear", "plum", "fig"]
ALL_PROVIDERS = frozenset(Provider)
# Repeated ids are accepted only where a result is looked for directly after its call.
_BY_PLACE = ALL_PROVIDERS - {Provider.ANTHROPIC, Provider.OPENAI_RESPONSES}

Fields = dict[str, Any]


class Call(NamedTuple):
    """A call of a tool, and what tells it from others.

    Attributes:
        name: The tool.
        turn: The number of its turn.
        place: A number that no other call of the session has.
        number: Its number in its turn.
    """

    name: str
    turn: int
    place: int
    number: int


@dataclass(frozen=True)
class Style:
    """How a provider's client writes calls and results.

    Attributes:
        providers: Who accepts this form.
        calling: Makes the fields of an assistant's message of its text and calls.
        answering: Makes the fields of the messages with the results of calls.
    """

    providers: frozenset[Provider]
    calling: Callable[[str, Sequence[Call]], Fields]
    answering: Callable[[str, Sequence[Call]], list[Fields]]


def _in_fields(ids: Callable[[Call], tuple[str | None, str | None, str | None]]) -> tuple[Any, Any]:
    """Calls and results in the fields of messages; `ids` gives a call's id, and its result's id and name."""

    def calling(text: str, calls: Sequence[Call]) -> Fields:
        made = [
            {"id": ids(call)[0], "type": "function", "function": {"name": call.name, "arguments": "{}"}}
            for call in calls
        ]
        return {"content": text, "tool_calls": made}

    def answering(text: str, calls: Sequence[Call]) -> list[Fields]:
        named = [ids(call)[1:] for call in calls]
        return [{"role": "tool", "content": text, "tool_call_id": id_, "name": name} for id_, name in named]

    return calling, answering


def _cohere_calls(text: str, calls: Sequence[Call]) -> Fields:
    return {"content": text, "tool_calls": [{"name": call.name, "parameters": {}} for call in calls]}


def _blocks(
    thought: Fields | None, said: Callable[[str], Fields], call: Callable[[Call], Fields], result: Callable[..., Fields]
) -> tuple[Any, Any]:
    """Calls and results as blocks of content, all results in one message of the user."""

    def calling(text: str, calls: Sequence[Call]) -> Fields:
        before = [said(text)] if text else []
        return {"content": [*before, *([thought] if thought else []), *map(call, calls)]}

    def answering(text: str, calls: Sequence[Call]) -> list[Fields]:
        return [{"role": "user", "content": [result(text, call) for call in calls]}] if calls else []

    return calling, answering


def _text(text: str) -> Fields:
    return {"type": "text", "text": text}


STYLES: dict[str, Style] = {
    "openai": Style(ALL_PROVIDERS, *_in_fields(lambda c: (f"call-{c.place}", f"call-{c.place}", None))),
    "openai, numbered in each turn": Style(
        _BY_PLACE, *_in_fields(lambda c: (f"call-{c.number}", f"call-{c.number}", None))
    ),
    "ollama": Style(ALL_PROVIDERS, *_in_fields(lambda c: (None, c.name, None))),
    "ollama, named results": Style(ALL_PROVIDERS, *_in_fields(lambda c: (None, None, c.name))),
    "vertex": Style(_BY_PLACE, *_in_fields(lambda c: (c.name, c.name, c.name))),
    "cohere": Style(ALL_PROVIDERS, _cohere_calls, _in_fields(lambda c: (None, f"new-{c.place}", c.name))[1]),
    "openai responses": Style(
        frozenset({Provider.OPENAI_RESPONSES}),
        *_blocks(
            {"type": "reasoning", "id": "rs", "summary": []},
            _text,
            lambda c: {"type": "function_call", "call_id": f"call-{c.place}", "name": c.name, "arguments": "{}"},
            lambda text, c: {"type": "function_call_output", "call_id": f"call-{c.place}", "output": text},
        ),
    ),
    "anthropic": Style(
        frozenset({Provider.ANTHROPIC}),
        *_blocks(
            {"type": "thinking", "thinking": "hm", "signature": "c2ln"},
            _text,
            lambda c: {"type": "tool_use", "id": f"toolu-{c.place}", "name": c.name, "input": {}},
            lambda text, c: {"type": "tool_result", "tool_use_id": f"toolu-{c.place}", "content": text},
        ),
    ),
    "gemini": Style(
        frozenset({Provider.GEMINI}),
        *_blocks(
            None,
            lambda text: {"text": text},
            lambda c: {"functionCall": {"name": c.name, "args": {}}},
            lambda text, c: {"functionResponse": {"name": c.name, "response": {"output": text}}},
        ),
    ),
}
IN_BLOCKS = ["openai responses", "anthropic", "gemini"]
IN_FIELDS = [name for name in STYLES if name not in IN_BLOCKS]

TEXTS = ["apple", "pear", "plum fig", "fig pear apple", "plum plum", "pear " * 30]
# How a round of calls ends; most are answered.
_ENDS = ["answered"] * 4 + ["in another order", "without results", "some missing", "one twice", "late"]
_NAMES = [[name] for name in TOOLS] + [["look", "look"], ["look", "book"], ["book", "send", "book"]]
# Each step is drawn at once: hypothesis takes its time for each choice.
_WHOLE_ROUNDS = [("round", text, names, "answered") for text in ["", *TEXTS] for names in _NAMES]
_ROUNDS = [("round", text, names, end) for text in ["", "apple", "plum fig"] for names in _NAMES for end in _ENDS]
_QUESTIONS = [("user", text) for text in TEXTS]
_ANSWERS = [("assistant", text) for text in TEXTS]
_OTHERS = [("user", ""), ("assistant", ""), ("system", "fig"), ("orphan", "pear")]
_STEPS: st.SearchStrategy[Any] = st.one_of(
    *(st.sampled_from(steps) for steps in (_QUESTIONS, _ANSWERS, _OTHERS, _ROUNDS, _ROUNDS))
)
_WHOLE_TURN = st.tuples(
    st.sampled_from(_QUESTIONS), st.lists(st.sampled_from(_WHOLE_ROUNDS), max_size=3), st.sampled_from(_ANSWERS)
).map(lambda turn: [turn[0], *turn[1], turn[2]])
SCOPES = [("u", "s"), ("u", "t"), ("v", "s")]
ONE_SCOPE = st.just(("u", "s"))
# Now and then, or always, the time stands still.
_TIMES = st.sampled_from([(1,), (0, 1), (1, 1, 0), (0,)])


class Written(NamedTuple):
    """Sessions, and who accepts their calls and results as they are."""

    messages: list[Message]
    providers: frozenset[Provider]


class _Session:
    """Writes the messages of one session."""

    def __init__(self, style: Style) -> None:
        self.style = style
        self.turn = 0
        self.number = 0
        self.calls = 0
        self.waiting: list[Fields] = []

    def messages(self, step: Sequence[Any]) -> Iterator[Fields]:
        kind, text = step[0], step[1]
        if kind == "round":
            yield from self._round(text, step[2], step[3])
            return
        if kind == "orphan":
            yield from self.style.answering(text, [self._call("look")])
            return
        if kind == "user":
            self.turn += 1
            self.number = 0
        yield {"role": kind, "content": text}
        if kind == "user":
            yield from self.waiting
            self.waiting = []

    def _round(self, text: str, names: Sequence[str], end: str) -> Iterator[Fields]:
        calls = [self._call(name) for name in names]
        yield {"role": "assistant", **self.style.calling(text, calls)}
        if end == "in another order":
            calls.reverse()
        if end == "some missing":
            calls = calls[1:]
        if end == "without results":
            calls = []
        results = self.style.answering(text or "found", calls)
        if end == "one twice":
            results += self.style.answering("final", calls[:1])
        if end == "late":
            self.waiting += results
            results = []
        yield from results

    def _call(self, name: str) -> Call:
        self.calls += 1
        self.number += 1
        return Call(name, self.turn, self.calls, self.number)


@st.composite
def _written(draw: st.DrawFn, steps: st.SearchStrategy[Any], styles: Sequence[str], scopes: Any) -> Written:
    style = STYLES[draw(st.sampled_from(styles))]
    sessions: dict[tuple[str, str], _Session] = {}
    messages: list[Message] = []
    time, passing = 1_000, itertools.cycle(draw(_TIMES))
    for several in draw(steps):
        scope = draw(scopes)
        session = sessions.setdefault(scope, _Session(style))
        for step in several:
            for fields in session.messages(step):
                time += next(passing)
                metadata = {"user_id": scope[0], "session_id": scope[1]}
                messages.append(Message(**fields, id=f"m-{len(messages)}", timestamp=time, metadata=metadata))
    return Written(messages, style.providers)


def any_sessions(
    styles: Sequence[str] = tuple(STYLES), scopes: st.SearchStrategy[tuple[str, str]] = ONE_SCOPE, most: int = 16
) -> st.SearchStrategy[Written]:
    """Messages with everything that goes wrong: lost, late and doubled results, empty messages, equal times."""
    return _written(st.lists(_STEPS.map(lambda step: [step]), max_size=most), styles, scopes)


def whole_sessions(
    styles: Sequence[str] = tuple(STYLES), scopes: st.SearchStrategy[tuple[str, str]] = ONE_SCOPE, most: int = 5
) -> st.SearchStrategy[Written]:
    """Messages of finished turns: a question, rounds of calls with all their results, and an answer."""
    return _written(st.lists(_WHOLE_TURN, max_size=most), styles, scopes)


def examples(count: int) -> settings:
    """Try so many examples; `make soak` tries more. To shrink one that fails would take minutes."""
    return settings(
        max_examples=int(os.environ.get("DYNAMIQ_MEMORY_EXAMPLES", count)), phases=(Phase.explicit, Phase.generate)
    )


def dumped(messages: Sequence[Message]) -> str:
    """Write messages for the text of a failed assertion."""
    return "\n".join(
        json.dumps({"id": m.id, **m.to_openai(), "at": m.timestamp, "session": m.session_id}) for m in messages
    )
