"""Counting the tokens of messages."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from dynamiq_memory.exceptions import ConfigurationError
from dynamiq_memory.messages import Message

TokenCounter = Callable[[Message], int]
"""Counts the tokens of a message."""

# Providers count some tokens for the frame of each message.
_TOKENS_PER_MESSAGE = 4
_LETTERS_PER_TOKEN = 4
_OTHER_CHARACTERS_PER_TOKEN = 1.5
# Images are scaled down by all providers: about a thousand tokens each. Files and sound count by their size.
_TOKENS_PER_ATTACHMENT = 1_000
_BYTES_PER_TOKEN = 30
_ATTACHMENTS = ("audio", "document", "file", "image", "media", "video")
_CALLS = ("function_call", "tool_call", "tool_use", "toolcall")
# Longer text without spaces, in the alphabet of base64, is data.
_DATA = re.compile(r"(?:data:[^,]{0,200},)?[A-Za-z0-9+/=_-]{200,}")


def count_tokens_approximately(message: Message) -> int:
    """Estimate the tokens of a message, without a tokenizer: a rule of thumb, on the high side for English.

    Four ASCII characters count as a token (OpenAI's rule of thumb), three others as two. Everything that is sent
    counts: text, calls with their arguments, results, a model's thoughts, citations. An image counts as 1,000 tokens;
    a document, sound or video as 1,000 or, if its data is there, as one token for each 30 bytes of that, whichever is
    more.
    """
    content = message.content
    if isinstance(content, str) and message.native is None and not message.tool_calls and content.isascii():
        return _TOKENS_PER_MESSAGE + -(-len(content) // _LETTERS_PER_TOKEN)
    texts, attachments = parts_of(message)
    text = "".join(texts)
    ascii_only = len(text.encode("ascii", "ignore"))
    tokens = ascii_only / _LETTERS_PER_TOKEN + (len(text) - ascii_only) / _OTHER_CHARACTERS_PER_TOKEN
    return _TOKENS_PER_MESSAGE + math.ceil(tokens) + attachments


def token_counter(tokenizer: Any) -> TokenCounter:
    """Make a token counter of a tokenizer.

    Args:
        tokenizer: A function from a text to its tokens; an object with `encode(text)`, such as an encoding of
            tiktoken (`tiktoken.encoding_for_model("gpt-4o")`) or a tokenizer of Hugging Face; or a chat model of
            LangChain, by its `get_num_tokens(text)`.

    Returns:
        A counter for `Memory(token_counter=…)`. Attachments count as in `count_tokens_approximately`.

    Raises:
        ConfigurationError: It is something else.
    """
    count = _text_counter(tokenizer)

    def of_message(message: Message) -> int:
        texts, attachments = parts_of(message)
        return _TOKENS_PER_MESSAGE + count("\n".join(texts)) + attachments

    return of_message


def parts_of(message: Message) -> tuple[list[str], int]:
    """Return the texts of a message that are sent, and the estimated tokens of its attachments."""
    content = sent_content(message)
    texts = [content] if isinstance(content, str) else []
    attachments = 0
    for part in () if isinstance(content, str) else content:
        kind = str(part.get("type") or part.get("block_type") or "")
        if message.tool_calls and kind in _CALLS:
            continue  # counted below
        if not any(word in kind for word in _ATTACHMENTS):
            texts += _strings(part)
            continue
        data = [text for text in _strings(part) if _DATA.fullmatch(text)]
        size = 0 if "image" in kind else sum(map(len, data)) * 3 // 4
        attachments += max(_TOKENS_PER_ATTACHMENT, size // _BYTES_PER_TOKEN)
    if message.tool_calls:
        texts.append(json.dumps(message.tool_calls, default=str))
    return texts, attachments


def as_sent(message: Message) -> Message:
    """Return a message with the content that its framework sends; see `sent_content`."""
    if not message.native:
        return message
    content = sent_content(message)
    return message if content is message.content else message.model_copy(update={"content": content})


def sent_content(message: Message) -> str | Sequence[Mapping[str, Any]]:
    """Return the content of a message as its framework sends it, with blocks that only that framework knows.

    Adapters keep such blocks (thoughts, citations, files by path) in `native`, which has the framework's own content
    where the canonical fields do not say all of it.
    """
    data = (message.native or {}).get("data")
    fields = data.get("fields", data) if isinstance(data, Mapping) else None
    if isinstance(fields, Mapping):
        for name in ("blocks", "content"):
            blocks = fields.get(name)
            if isinstance(blocks, list) and blocks:
                return [_plain(block) for block in blocks]
    return message.content


def _plain(block: Any) -> Mapping[str, Any]:
    """A block without the tags of `dynamiq_memory.integrations.native`."""
    while isinstance(block, Mapping) and "$native" in block:
        block = block.get("value")
    if isinstance(block, Mapping) and isinstance(block.get("fields"), Mapping) and "class" in block:
        return {"type": str(block["class"]).removesuffix("Block").lower(), **block["fields"]}
    return block if isinstance(block, Mapping) else {"type": "text", "text": str(block)}


def _strings(value: Any) -> Iterator[str]:
    """The texts and numbers within a block."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, each in value.items():
            if key not in ("type", "block_type"):
                yield from _strings(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _strings(each)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield str(value)


def _text_counter(tokenizer: Any) -> Callable[[str], int]:
    for name in ("encode", "get_num_tokens"):
        method = None if isinstance(tokenizer, str) else getattr(tokenizer, name, None)
        if callable(method):
            return lambda text: _number_of(method(text))
    if callable(tokenizer):
        return lambda text: _number_of(tokenizer(text))
    raise ConfigurationError(
        f"a {type(tokenizer).__name__} is not a tokenizer: give a function from a text to its tokens, an object with "
        "encode(text), or a chat model with get_num_tokens(text)"
    )


def _number_of(tokens: Any) -> int:
    if isinstance(tokens, int):
        return tokens
    tokens = getattr(tokens, "ids", tokens)  # what tokenizers of Hugging Face return
    try:
        return len(tokens)
    except TypeError:
        raise ConfigurationError(
            f"the tokenizer must return a list of tokens or their number, not {tokens!r}"
        ) from None
