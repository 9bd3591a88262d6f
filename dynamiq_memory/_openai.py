"""One message in the format of OpenAI's chat API, which compatible servers take too."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from dynamiq_memory._blocks import TEXT_KINDS, Call, block_call, block_result, calls_in, kind_of, results_in
from dynamiq_memory._json import copy_plain
from dynamiq_memory.exceptions import MessageError

Content = str | Sequence[Mapping[str, Any]]

# The parts that the API takes from each role. Each has its data in a field that is named as its type.
_ACCEPTED = {
    "assistant": ("text", "refusal"),
    "system": ("text",),
    "tool": ("text",),
    "user": ("text", "image_url", "input_audio", "file"),
}
_FIELD_TYPES = {"text": str, "refusal": str, "image_url": Mapping, "input_audio": Mapping, "file": Mapping}
_MEDIA = (
    *("audio", "document", "file", "image", "image_url", "input_audio", "input_file", "input_image", "media"),
    "text-plain",
)
# Where parts of other shapes have parts within, or their data.
_HOLDERS = {"citable": "content", "citation": "cited_content", "non_standard": "value", "search_result": "content"}
_SOURCES = ("source", "inlineData", "inline_data", "fileData", "file_data", "image_url", "input_audio", "file")
_DATA = ("data", "base64", "file_data", "image", "audio")
_URL = ("url", "image_url", "file_uri", "fileUri")
_MIME = ("mime_type", "media_type", "mimeType", "image_mimetype", "document_mimetype")
_FILE_NAME = ("filename", "title", "displayName", "display_name")
_DATA_URL = re.compile(r"data:(?P<mime>[^;,]*)[^,]*,(?P<data>.*)", re.DOTALL)
_AUDIO_FORMATS = {"mp3": "mp3", "mpeg": "mp3", "wav": "wav", "wave": "wav", "x-wav": "wav", "vnd.wave": "wav"}
_NOT_IN_NAMES = re.compile(r"[\s<|\\/>]+")
_NOT_IN_TOOL_NAMES = re.compile(r"[^a-zA-Z0-9_-]")
_LONGEST_TOOL_NAME = 64


def chat_message(
    role: str,
    content: Content,
    tool_calls: Sequence[Any] | None = None,
    tool_call_id: str | None = None,
    name: str | None = None,
    *,
    where: str,
    strict: bool = False,
) -> dict[str, Any]:
    """Convert a message's fields; see `Message.to_openai`.

    Args:
        role: As in the message.
        content: As in the message.
        tool_calls: As in the message.
        tool_call_id: As in the message.
        name: As in the message.
        where: The message, for error messages.
        strict: Whether to refuse parts that have no equivalent, rather than leave them out.

    Raises:
        MessageError: With `strict`, the content has such a part.
    """
    results = results_in(content) if role == "user" else []
    if results and len(content) == 1:
        role, content = "tool", result_content(results[0].content)
        tool_call_id, name = results[0].id, results[0].name or None
    elif results and strict:
        raise MessageError(
            f"{where} has results of tools beside other parts, which chat APIs take in messages of their own only: "
            "convert it by dynamiq_memory.to_openai([message])"
        )
    message: dict[str, Any] = {"role": role, "content": content}
    if not isinstance(content, str):
        message["content"] = _content(content, role, where, strict=strict)
    if role == "assistant" and (tool_calls or not isinstance(content, str)):
        calls = [call if call["id"] else {**call, "id": _name_of(call)} for call in chat_calls(tool_calls, content)]
        message |= {"tool_calls": calls} if calls else {}
    if name is not None:
        name = _tool_name(name) if role == "tool" else _NOT_IN_NAMES.sub("_", name)
    if role == "tool" and (answered := tool_call_id or name):
        message["tool_call_id"] = answered
    return message if name is None else {**message, "name": name}


def chat_calls(tool_calls: Sequence[Any] | None, content: Content) -> list[dict[str, Any]]:
    """Return the calls of an assistant's message in the API's shape, with empty ids where they have none."""
    given = tool_calls or ()
    return [
        _renamed(given[place]) if place < len(given) and _is_chat_call(given[place]) else _chat_call(call)
        for place, call in enumerate(calls_in(given, content))
    ]


def result_content(result: Any) -> str | list[dict[str, Any]]:
    """Return a result in the form of a message's content: text, content parts, or JSON of any other value."""
    if result is None:
        return ""
    if isinstance(result, list) and all(isinstance(part, str | Mapping) for part in result):
        return [{"type": "text", "text": part} if isinstance(part, str) else dict(part) for part in result]
    return result if isinstance(result, str) else _json(result)


def content_parts(part: Mapping[str, Any], role: str) -> list[dict[str, Any]]:
    """Return a content part as parts of the API, or unchanged if it has no equivalent there.

    Gemini's thoughts, which are text too, are left out.

    Args:
        part: The part; not changed.
        role: The role of its message.
    """
    kind = kind_of(part)
    if kind in _FIELD_TYPES:
        return [dict(part)]
    if kind is None and part.get("thought"):
        return []
    return _for_role(part, role) or [dict(part)]


def _tool_name(name: str) -> str:
    """Return a tool's name as the API accepts it: 1 to 64 ASCII letters, digits, underscores and dashes."""
    return _NOT_IN_TOOL_NAMES.sub("_", name)[:_LONGEST_TOOL_NAME] or "_"


def _renamed(call: Mapping[str, Any]) -> dict[str, Any]:
    copied: dict[str, Any] = copy_plain(call)
    copied[call["type"]]["name"] = _tool_name(_name_of(call))
    return copied


def _name_of(call: Mapping[str, Any]) -> str:
    return str(call[call["type"]]["name"])


def _is_chat_call(call: Any) -> bool:
    if not isinstance(call, Mapping) or not isinstance(call.get("id"), str):
        return False
    inner = call.get("type") in ("function", "custom") and call.get(call["type"])
    if not isinstance(inner, Mapping):
        return False
    return all(
        isinstance(inner.get(key), str) for key in ("name", "arguments" if call["type"] == "function" else "input")
    )


def _chat_call(call: Call) -> dict[str, Any]:
    if call.is_free_text:
        given = call.arguments if isinstance(call.arguments, str) else _json(call.arguments or "")
        return {"id": call.id, "type": "custom", "custom": {"name": _tool_name(call.name), "input": given}}
    arguments = call.arguments or {}
    function = {
        "name": _tool_name(call.name),
        "arguments": arguments if isinstance(arguments, str) else _json(arguments),
    }
    return {"id": call.id, "type": "function", "function": function}


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)


# --- content parts -----------------------------------------------------------------------------------------------


def _content(
    content: Sequence[Mapping[str, Any]], role: str, where: str, *, strict: bool
) -> str | list[dict[str, Any]]:
    """The parts that the API takes from a role; an empty text if there are none, since it refuses an empty list."""
    parts: list[dict[str, Any]] = []
    for place, part in enumerate(content):
        if role == "assistant" and block_call(part) is not None:
            continue  # among the tool calls
        converted = _for_role(part, role)
        taken = [each for each in converted if each["type"] in _ACCEPTED[role]]
        if strict and (not taken or len(taken) < len(converted)):
            kind = kind_of(part) or ", ".join(part)
            raise MessageError(
                f"content[{place}] of {where} is a {kind!r} part, which OpenAI's chat API does not take from the "
                f"role {role!r}: remove it, or use strict=False to leave it out"
            )
        parts += taken
    return parts or ""


def _for_role(part: Mapping[str, Any], role: str) -> list[dict[str, Any]]:
    result = block_result(part) if role in ("tool", "user") else None
    if result is None:
        converted = _converted(part)
        # Parts of a tool's result may be data of any shape.
        return [_text(_json(part))] if role == "tool" and not converted and kind_of(part) is None else converted
    parts = _parts_of_result(result.content)
    return parts if role == "tool" else [_text(f"Result of {result.name or result.id or 'a tool'}:"), *parts]


def _parts_of_result(result: Any) -> list[dict[str, Any]]:
    content = result_content(result)
    if isinstance(content, str):
        return [_text(content)] if content else []
    return [each for part in content for each in _for_role(part, "tool")]


def _converted(part: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A part as parts of the API; none if it has no equivalent there."""
    kind = kind_of(part)
    if kind in _FIELD_TYPES and isinstance(part.get(kind), _FIELD_TYPES[kind]) and kind != "input_audio":
        kept = {key: copy_plain(part[key]) for key in (kind, "prompt_cache_breakpoint") if key in part}
        return [{"type": kind, **kept}]
    if kind in (*TEXT_KINDS, "text-plain", None) and isinstance(part.get("text"), str):
        return [] if part.get("thought") else [_text(part["text"])]
    if kind in _MEDIA or (kind is None and _source(part) is not part):
        return _media(part, _source(part))
    # Anthropic's search results, LlamaIndex's citations, and LangChain's way of holding blocks of others.
    inner = part.get(_HOLDERS.get(kind or "", ""))
    items = inner if isinstance(inner, list) else [inner]
    return [each for item in items if isinstance(item, Mapping) for each in _converted(item)]


def _source(part: Mapping[str, Any]) -> Mapping[str, Any]:
    """Where a part has its data: in a part of it, or itself."""
    return next((part[key] for key in _SOURCES if isinstance(part.get(key), Mapping)), part)


def _media(part: Mapping[str, Any], source: Mapping[str, Any]) -> list[dict[str, Any]]:
    """An image, sound or file, of whatever provider or framework."""
    kind = kind_of(part) or ""
    if source.get("type") == "content":
        return _parts_of_result(source.get("content"))
    if "text" in (source.get("type"), part.get("source_type")):
        text = source.get("data", source.get("text"))
        return [_text(text)] if isinstance(text, str) else []
    data, url, mime = _first(source, _DATA), _first(source, _URL), _first(source, _MIME)
    if parsed := _DATA_URL.match(data or url):
        data, mime = parsed["data"], parsed["mime"] or mime
    family, _, subtype = mime.partition("/")
    if family == "image" or "image" in kind:
        return _image(f"data:{mime or 'image/png'};base64,{data}" if data else url, part.get("detail"))
    if family == "audio" or "audio" in kind:
        return _audio(data, _first(source, ("format",)) or subtype)
    return [] if family == "video" else _file(part, source, data, mime)


def _image(url: str, detail: Any) -> list[dict[str, Any]]:
    if not url.startswith(("data:", "http://", "https://")):
        return []
    return [{"type": "image_url", "image_url": {"url": url, **({"detail": detail} if isinstance(detail, str) else {})}}]


def _audio(data: str, format_: str) -> list[dict[str, Any]]:
    known = _AUDIO_FORMATS.get(format_)
    return [{"type": "input_audio", "input_audio": {"data": data, "format": known}}] if data and known else []


def _file(part: Mapping[str, Any], source: Mapping[str, Any], data: str, mime: str) -> list[dict[str, Any]]:
    if data:
        mime = mime or "application/pdf"
        name = _first(part, _FILE_NAME) or _first(source, _FILE_NAME) or f"file.{mime.rpartition('/')[2]}"
        return [{"type": "file", "file": {"filename": name, "file_data": f"data:{mime};base64,{data}"}}]
    # An id in a source is Anthropic's, which others do not know.
    id_ = _first(part, ("file_id", "id") if part.get("source_type") == "id" else ("file_id",))
    return [{"type": "file", "file": {"file_id": id_}}] if id_ else []


def _text(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def _first(fields: Mapping[str, Any], keys: Sequence[str]) -> str:
    """The first text among some fields; base64 may be bytes. Empty without one."""
    found = next((fields[key] for key in keys if isinstance(fields.get(key), str | bytes) and fields[key]), "")
    return found.decode("ascii", "replace") if isinstance(found, bytes) else found
