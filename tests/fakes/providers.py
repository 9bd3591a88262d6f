"""A server that speaks the chat APIs of OpenAI (both), Anthropic, Gemini, Ollama and Cohere, and is as strict as they are.

Each request is read as messages of ours, which must keep the provider's rules (`dynamiq_memory.testing.providers`);
what can only be seen in the provider's own format is checked here. A request that breaks a rule is refused with the
status 400. The model calls a tool for each question, if it has one, twice at once if it may, and then answers.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from dynamiq_memory import Message
from dynamiq_memory.conversation.calls import is_question, results_of
from dynamiq_memory.testing.providers import Provider, refusals
from tests.fakes.http_server import Answer, HTTPServer, Request

JSON = dict[str, Any]
TOOL = "look"


class RefusedError(Exception):
    """What a provider says about a request that it refuses."""


class ProviderServer(HTTPServer):
    """Answers `POST` requests at the paths of the APIs.

    Attributes:
        conversations: The messages of the requests, in order.
        refused: Why requests were refused.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conversations: list[list[Message]] = []
        self.refused: list[str] = []

    def answer(self, request: Request) -> Answer:
        path = request.path.rsplit(":", 1)[-1] if "/models/" in request.path else request.path
        if path not in _APIS:
            return Answer({"error": {"message": f"unknown path {request.path}"}}, status=404)
        provider, read, write = _APIS[path]
        try:
            messages = read(request.body)
            faults = refusals(messages, provider)
            _require(not faults, "; ".join(faults))
        except RefusedError as error:
            self.refused.append(f"{provider}: {error}")
            return Answer({"error": {"message": str(error), "type": "invalid_request_error"}}, status=400)
        self.conversations.append(messages)
        turn, id_ = sum(map(is_question, messages)), f"{provider}-{len(self.requests)}"
        if results_of(messages[-1]) or not request.body.get("tools"):
            return Answer(write(id_, f"The answer, of {turn} questions.", []))
        # llama-index-llms-cohere sends each result for all parallel calls.
        ports = ["Ostend"] if provider is Provider.COHERE else ["Ostend", "Ghent"]
        return Answer(write(id_, "", [(f"{id_}-{port}", {"port": port}) for port in ports]))


def _require(condition: object, fault: str) -> None:
    if not condition:
        raise RefusedError(fault)


Calls = Sequence[tuple[str, JSON]]
"""The ids of calls and their arguments."""


# --- OpenAI, chat completions -----------------------------------------------------------------------------------------


def _read_openai(body: JSON) -> list[Message]:
    for message in body["messages"]:
        role, calls = message["role"], message.get("tool_calls") or []
        _require(role in ("system", "developer", "user", "assistant", "tool"), f"invalid role {role!r}")
        _require(message.get("content") is not None or calls, "content is null")
        _require(role != "tool" or message.get("tool_call_id"), "a tool message without tool_call_id")
        for call in calls:
            _require(call.get("id"), "a call without an id")
            _require(isinstance(call["function"]["arguments"], str), "arguments are not a string")
            json.loads(call["function"]["arguments"])
    return [
        Message(
            role="system" if message["role"] == "developer" else message["role"],
            content=message.get("content") or "",
            tool_calls=message.get("tool_calls"),
            tool_call_id=message.get("tool_call_id"),
        )
        for message in body["messages"]
    ]


def _write_openai(id_: str, text: str, calls: Calls) -> JSON:
    made = [
        {"id": call, "type": "function", "function": {"name": TOOL, "arguments": json.dumps(given)}}
        for call, given in calls
    ]
    message = {"role": "assistant", "content": text or None, **({"tool_calls": made} if made else {})}
    choice = {"index": 0, "message": message, "finish_reason": "tool_calls" if made else "stop"}
    usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
    return {"id": id_, "object": "chat.completion", "created": 0, "model": "m", "choices": [choice], "usage": usage}


# --- OpenAI, Responses ------------------------------------------------------------------------------------------------


def _read_responses(body: JSON) -> list[Message]:
    messages = []
    for item in body["input"]:
        kind = item.get("type", "message")
        if kind == "message":
            _require(item["role"] in ("system", "developer", "user", "assistant"), f"invalid role {item['role']!r}")
            role = "system" if item["role"] == "developer" else item["role"]
            messages.append(Message(role=role, content=item["content"]))
        elif kind == "function_call_output":
            messages.append(Message(role="user", content=[item]))
        else:
            _require(kind in ("function_call", "reasoning"), f"unknown item {kind!r}")
            messages.append(Message(role="assistant", content=[item]))
    ids = [item["id"] for item in body["input"] if item.get("id")]
    _require(len(set(ids)) == len(ids), "duplicate item")
    return _with_reasoning(messages)


def _with_reasoning(messages: Sequence[Message]) -> list[Message]:
    """Put each thought into the message of the item that follows it."""
    merged: list[Message] = []
    for message in messages:
        before = merged[-1].content if merged else ""
        if message.role == "assistant" and isinstance(before, list) and before[-1].get("type") == "reasoning":
            said = message.content if isinstance(message.content, list) else [_text(message.content)]
            merged[-1] = Message(role="assistant", content=[*before, *said])
        else:
            merged.append(message)
    return merged


def _write_responses(id_: str, text: str, calls: Calls) -> JSON:
    output: list[JSON] = [
        {"type": "function_call", "id": f"fc_{call}", "call_id": call, "name": TOOL, "arguments": json.dumps(given)}
        for call, given in calls
    ]
    if calls:
        output.insert(0, {"type": "reasoning", "id": f"rs_{id_}", "summary": []})
    else:
        said = {"type": "output_text", "text": text, "annotations": []}
        output.append(
            {"type": "message", "id": f"msg_{id_}", "role": "assistant", "status": "completed", "content": [said]}
        )
    usage = {
        "input_tokens": 1,
        "output_tokens": 1,
        "total_tokens": 2,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens_details": {"reasoning_tokens": 0},
    }
    rest = {"parallel_tool_calls": True, "tool_choice": "auto", "tools": [], "usage": usage, "status": "completed"}
    return {"id": id_, "object": "response", "created_at": 0, "model": "m", "output": output, **rest}


# --- Anthropic --------------------------------------------------------------------------------------------------------


def _read_anthropic(body: JSON) -> list[Message]:
    messages = [Message(role="system", content=body["system"])] if body.get("system") else []
    for message in body["messages"]:
        _require(message["role"] in ("user", "assistant"), f"invalid role {message['role']!r}")
        blocks = [_text(message["content"])] if isinstance(message["content"], str) else message["content"]
        _require(all(b["text"].strip() for b in blocks if b["type"] == "text"), "text content blocks must be non-empty")
        kinds = [block["type"] == "tool_result" for block in blocks]
        _require(kinds == sorted(kinds, reverse=True), "tool_result blocks must come first")
        results = [block for block in blocks if block["type"] == "tool_result"]
        said = [block for block in blocks if block["type"] != "tool_result"]
        # Our messages are either results or a question.
        messages += [Message(role=message["role"], content=part) for part in (results, said) if part or not blocks]
    return messages


def _write_anthropic(id_: str, text: str, calls: Calls) -> JSON:
    blocks = [{"type": "tool_use", "id": call, "name": TOOL, "input": given} for call, given in calls]
    reason = "tool_use" if calls else "end_turn"
    usage = {"input_tokens": 1, "output_tokens": 1}
    head = {"id": id_, "type": "message", "role": "assistant", "model": "m", "stop_sequence": None, "usage": usage}
    return {**head, "content": blocks or [_text(text)], "stop_reason": reason}


# --- Gemini -----------------------------------------------------------------------------------------------------------


def _read_gemini(body: JSON) -> list[Message]:
    messages: list[Message] = []
    role = ""
    for content in body["contents"]:
        parts = content.get("parts") or []
        _require(parts, "a content must include at least one parts field")
        _require(all(part.get("text") != "" for part in parts), "model input cannot be empty")
        responses = ["functionResponse" in part for part in parts]
        _require(all(responses) or not any(responses), "a function response shares a content with other parts")
        called = any("functionCall" in part for part in parts)
        _require(not called or role == "user", "a function call turn must come after a user or a function response")
        role = content["role"]
        _require(role in ("user", "model"), f"invalid role {role!r}")
        messages.append(Message(role="user" if role == "user" else "assistant", content=parts))
    return messages


def _write_gemini(id_: str, text: str, calls: Calls) -> JSON:
    parts: list[JSON] = [{"functionCall": {"id": call, "name": TOOL, "args": given}} for call, given in calls]
    candidate = {"content": {"role": "model", "parts": parts or [{"text": text}]}, "finishReason": "STOP", "index": 0}
    usage = {"promptTokenCount": 1, "candidatesTokenCount": 1, "totalTokenCount": 2}
    return {"candidates": [candidate], "usageMetadata": usage, "modelVersion": "m", "responseId": id_}


# --- Ollama -----------------------------------------------------------------------------------------------------------


def _read_ollama(body: JSON) -> list[Message]:
    for message in body["messages"]:
        _require(message["role"] in ("system", "user", "assistant", "tool"), f"invalid role {message['role']!r}")
        for call in message.get("tool_calls") or []:
            _require(isinstance(call["function"]["arguments"], Mapping), "arguments are not an object")
    return [
        Message(
            role=message["role"],
            content=message.get("content") or "",
            tool_calls=message.get("tool_calls"),
            name=message.get("tool_name"),
        )
        for message in body["messages"]
    ]


def _write_ollama(_: str, text: str, calls: Calls) -> JSON:
    made = [{"function": {"name": TOOL, "arguments": given}} for _, given in calls]
    message = {"role": "assistant", "content": text, **({"tool_calls": made} if made else {})}
    counts = {"prompt_eval_count": 1, "eval_count": 1}
    return {"model": "m", "created_at": "2026-01-01T00:00:00Z", "message": message, "done": True, **counts}


# --- Cohere, the first version ----------------------------------------------------------------------------------------


def _read_cohere(body: JSON) -> list[Message]:
    _require(not (body["message"] and body.get("tool_results")), "cannot specify both message and tool_results")
    last: JSON = {"role": "User", "message": body["message"]}
    if body.get("tool_results"):
        last = {"role": "Tool", "tool_results": body["tool_results"]}
    messages: list[Message] = []
    calls: list[JSON] = []
    for entry in [*body.get("chat_history", ()), last]:
        role = entry["role"].lower()
        _require(role in ("system", "user", "chatbot", "tool"), f"invalid role {role!r}")
        if role != "tool":
            calls = entry.get("tool_calls") or []
            spoken = {"system": "system", "user": "user", "chatbot": "assistant"}[role]
            messages.append(Message(role=spoken, content=entry.get("message") or "", tool_calls=calls or None))
            continue
        for result in entry["tool_results"]:
            _require(result["call"] in calls, "a result of another call")
            _require(result["outputs"], "a result without outputs")
            messages.append(Message(role="tool", content=json.dumps(result["outputs"]), name=result["call"]["name"]))
    return messages


def _write_cohere(id_: str, text: str, calls: Calls) -> JSON:
    made = [{"name": TOOL, "parameters": given} for _, given in calls]
    return {"generation_id": id_, "text": text, "finish_reason": "COMPLETE", **({"tool_calls": made} if made else {})}


def _text(text: str) -> JSON:
    return {"type": "text", "text": text}


_APIS: dict[str, tuple[Provider, Callable[[JSON], list[Message]], Callable[[str, str, Calls], JSON]]] = {
    "/v1/chat/completions": (Provider.OPENAI, _read_openai, _write_openai),
    "/v1/responses": (Provider.OPENAI_RESPONSES, _read_responses, _write_responses),
    "/v1/messages": (Provider.ANTHROPIC, _read_anthropic, _write_anthropic),
    "generateContent": (Provider.GEMINI, _read_gemini, _write_gemini),
    "/api/chat": (Provider.OLLAMA, _read_ollama, _write_ollama),
    "/v1/chat": (Provider.COHERE, _read_cohere, _write_cohere),
}
