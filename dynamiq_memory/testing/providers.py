"""What providers of models refuse: their rules for the messages of a conversation.

    from dynamiq_memory.testing.providers import Provider, refusals

    assert refusals(messages, Provider.ANTHROPIC) == []

The rules are about a conversation as a provider's client sends it, with the question that is asked now at its end.
Clients convert messages first; where that matters, the conversion is part of the rule:

- langchain-anthropic merges neighbouring messages of users and results, and Anthropic itself merges neighbours of one
  role, so two questions in a row are accepted.
- llama-index-llms-google-genai merges neighbours of one role. langchain-google-genai does not, and pairs results with
  calls by their ids wherever they are.
- llama-index-llms-cohere uses the first version of Cohere's API, which pairs by position.
- langchain-mistralai gives calls ids that Mistral accepts, and sends no text beside calls.
- Chat templates of some open models demand that users and assistants alternate strictly; none of these APIs does.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from dynamiq_memory.conversation.calls import ToolReference, calls_of, is_question, results_of, says_something
from dynamiq_memory.conversation.tokens import as_sent
from dynamiq_memory.messages import Message, MessageRole

__all__ = ["RULES", "Provider", "Rule", "refusals"]

_THOUGHTS = ("thinking", "redacted_thinking", "reasoning")


class Provider(StrEnum):
    """A provider's API."""

    ANTHROPIC = "anthropic"
    COHERE = "cohere"
    GEMINI = "gemini"
    MISTRAL = "mistral"
    OLLAMA = "ollama"
    OPENAI = "openai"
    OPENAI_RESPONSES = "openai-responses"


Rule = Callable[[Sequence[Message]], Iterator[str]]
"""Reports what of a conversation breaks a rule."""


def refusals(messages: Sequence[Message], provider: Provider) -> list[str]:
    """Report why a provider would refuse a conversation.

    Args:
        messages: The conversation, as it would be sent.
        provider: The provider.

    Returns:
        A line for each fault; empty if the provider accepts the conversation.
    """
    return [f"{rule.__name__}: {fault}" for rule in RULES[provider] for fault in rule(messages)]


# --- the rules -----------------------------------------------------------------------------------------------------


def begins_with_a_question(messages: Sequence[Message]) -> Iterator[str]:
    """The first message after instructions is a user's."""
    first = next((message for message in messages if message.role is not MessageRole.SYSTEM), None)
    if first is not None and not is_question(first):
        yield f"the first message is {_named(first)}"


def ends_with_a_question_or_result(messages: Sequence[Message]) -> Iterator[str]:
    """The last message is a user's or a tool's result."""
    if messages and messages[-1].role in (MessageRole.ASSISTANT, MessageRole.SYSTEM):
        yield f"the last message is {_named(messages[-1])}"


def calls_have_results(messages: Sequence[Message]) -> Iterator[str]:
    """Each call is answered directly after the message that makes it."""
    yield from _unanswered(messages, merged=False)


def calls_of_neighbours_have_results(messages: Sequence[Message]) -> Iterator[str]:
    """Each call is answered directly after the assistant's messages, which the client or the API merges."""
    yield from _unanswered(messages, merged=True)


def results_have_calls(messages: Sequence[Message]) -> Iterator[str]:
    """Each result directly follows the message with its call, and no other result answers that call."""
    yield from _orphaned(messages, merged=False)


def results_have_calls_of_neighbours(messages: Sequence[Message]) -> Iterator[str]:
    """Each result directly follows the assistant's messages with its call; no other result answers that call."""
    yield from _orphaned(messages, merged=True)


def messages_say_something(messages: Sequence[Message]) -> Iterator[str]:
    """A user's message has content; an assistant's has content or calls."""
    for message in messages:
        spoken = message.role in (MessageRole.USER, MessageRole.ASSISTANT)
        if spoken and not calls_of(message) and not results_of(message) and not says_something(as_sent(message)):
            yield f"{_named(message)} is empty"


def thoughts_are_followed(messages: Sequence[Message]) -> Iterator[str]:
    """What a model thinks is followed by what it says or calls."""
    for message in messages:
        blocks = message.content if isinstance(message.content, list) and not message.tool_calls else []
        if blocks and blocks[-1].get("type") in _THOUGHTS:
            yield f"{_named(message)} ends with a thought"


def ids_are_unique(messages: Sequence[Message]) -> Iterator[str]:
    """No two calls have the same id."""
    ids = Counter(call.id for message in messages for call in calls_of(message) if call.id)
    yield from (f"{count} calls have the id {id_!r}" for id_, count in ids.items() if count > 1)


def instructions_come_first(messages: Sequence[Message]) -> Iterator[str]:
    """No system message comes after the first question."""
    begun = False
    for message in messages:
        if begun and message.role is MessageRole.SYSTEM:
            yield f"{_named(message)} comes after the first question"
        begun = begun or message.role is not MessageRole.SYSTEM


def results_are_answered_before_the_next_question(messages: Sequence[Message]) -> Iterator[str]:
    """A tool's result is followed by another result or by the assistant."""
    for before, after in itertools.pairwise(messages):
        if results_of(before) and is_question(after):
            yield f"{_named(before)} is directly followed by a question"


RULES: Mapping[Provider, Mapping[Rule, str]] = {
    Provider.ANTHROPIC: {
        begins_with_a_question: "https://github.com/livekit/agents/pull/669",
        ends_with_a_question_or_result: "https://github.com/vybestack/llxprt-code/pull/3695",
        calls_of_neighbours_have_results: "https://github.com/anthropics/claude-code/issues/2697",
        results_have_calls_of_neighbours: "https://github.com/anthropics/claude-code/issues/18947",
        messages_say_something: "https://github.com/anthropics/anthropic-sdk-python/issues/461",
        thoughts_are_followed: "https://github.com/tailcallhq/forgecode/issues/2107",
        ids_are_unique: "https://github.com/anthropics/claude-code/issues/20901",
        # langchain-anthropic raises an error, except for models that take such messages, or moves one to the beginning.
        instructions_come_first: "https://docs.latitude.so/guides/prompt-manager/provider-rules/anthropic",
    },
    Provider.COHERE: {
        ends_with_a_question_or_result: "https://docs.cohere.com/v1/docs/multi-step-tool-use.md",
        calls_have_results: "https://docs.cohere.com/v1/docs/multi-step-tool-use.md",
        results_have_calls: "https://docs.cohere.com/v1/docs/multi-step-tool-use.md",
        messages_say_something: "https://github.com/kwaroran/Risuai/issues/458",
        results_are_answered_before_the_next_question: "https://github.com/oracle/langchain-oracle/pull/9",
    },
    Provider.GEMINI: {
        begins_with_a_question: "https://github.com/google-gemini/gemini-cli/issues/11814",
        ends_with_a_question_or_result: "https://github.com/envoyproxy/ai-gateway/pull/2686",
        calls_of_neighbours_have_results: "https://github.com/google-gemini/gemini-cli/issues/16415",
        results_have_calls_of_neighbours: "https://github.com/langchain-ai/langchain/issues/27799",
        messages_say_something: "https://github.com/envoyproxy/ai-gateway/pull/2686",
    },
    Provider.MISTRAL: {
        ends_with_a_question_or_result: "https://github.com/huggingface/smolagents/issues/757",
        calls_have_results: "https://github.com/mistralai/mistral-common",  # protocol/instruct/validator.py
        results_have_calls: "https://github.com/mistralai/mistral-inference/issues/135",
        messages_say_something: "https://github.com/mistralai/mistral-common",
        instructions_come_first: "https://github.com/mistralai/mistral-common",
        results_are_answered_before_the_next_question: "https://github.com/datapizza-labs/datapizza-ai/issues/98",
    },
    # Ollama refuses nothing: its templates write what they are given, so that a model sees results of unknown calls.
    Provider.OLLAMA: {
        calls_have_results: "https://docs.ollama.com/capabilities/tool-calling",
        results_have_calls: "https://docs.ollama.com/capabilities/tool-calling",
    },
    Provider.OPENAI: {
        calls_have_results: "https://github.com/sdcb/chats/pull/132",
        results_have_calls: "https://github.com/run-llama/llama_index/issues/10493",
    },
    Provider.OPENAI_RESPONSES: {
        calls_of_neighbours_have_results: "https://platform.openai.com/docs/guides/function-calling",
        results_have_calls_of_neighbours: "https://platform.openai.com/docs/guides/function-calling",
        thoughts_are_followed: "https://github.com/vercel/ai/issues/7099",
        ids_are_unique: "https://github.com/earendil-works/pi/issues/9057",
    },
}
"""The rules of each provider, with a page that shows each: documentation, or an issue with the provider's error."""


# --- calls and results ---------------------------------------------------------------------------------------------


@dataclass
class _Exchange:
    """Calls, and the results that directly follow them."""

    calls: list[ToolReference]
    results: list[ToolReference] = field(default_factory=list)

    def unmatched(self) -> tuple[list[ToolReference], list[ToolReference]]:
        """Return the calls without a result, and the results without a call."""
        calls, results = [], list(self.results)
        for call in self.calls:
            answer = next((result for result in results if _answers(result, call)), None)
            if answer is None:
                calls.append(call)
            else:
                results.remove(answer)
        return calls, results


def _answers(result: ToolReference, call: ToolReference) -> bool:
    if call.id:
        return result.id == call.id
    return call.name in (result.name, result.id) or not result.name


def _exchanges(messages: Sequence[Message], *, merged: bool) -> list[_Exchange]:
    exchanges: list[_Exchange] = []
    current: _Exchange | None = None
    for message in messages:
        results = results_of(message)
        if results:
            if current is None:
                exchanges.append(current := _Exchange([]))
            current.results += results
        elif message.role is not MessageRole.ASSISTANT:
            current = None
        elif merged and current is not None and not current.results:
            current.calls += calls_of(message)
        else:
            exchanges.append(current := _Exchange(list(calls_of(message))))
    return exchanges


def _unanswered(messages: Sequence[Message], *, merged: bool) -> Iterator[str]:
    for exchange in _exchanges(messages, merged=merged):
        yield from (f"call {call.id or call.name!r} has no result" for call in exchange.unmatched()[0])


def _orphaned(messages: Sequence[Message], *, merged: bool) -> Iterator[str]:
    for exchange in _exchanges(messages, merged=merged):
        yield from (f"result {result.id or result.name!r} has no call" for result in exchange.unmatched()[1])


def _named(message: Message) -> str:
    return f"the {message.role.value} message {message.id}"
