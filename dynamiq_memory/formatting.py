"""Format conversations as text."""

from __future__ import annotations

import json
import re
from enum import StrEnum
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape

from dynamiq_memory._checks import check_choice
from dynamiq_memory.exceptions import InvalidArgumentError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dynamiq_memory.messages import Message

# XML 1.0 does not allow these characters, not even escaped (https://www.w3.org/TR/xml/#charsets).
_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
# XML parsers read a bare carriage return as a line feed (https://www.w3.org/TR/xml/#sec-line-ends).
_LINE_ENDS = {"\r": "&#13;"}


class FormatType(StrEnum):
    """The text format of a conversation."""

    PLAIN = "plain"
    MARKDOWN = "markdown"
    XML = "xml"


def format_messages(messages: Sequence[Message], format_type: FormatType | str = FormatType.PLAIN) -> str:
    """Format messages as text.

    Args:
        messages: The messages.
        format_type: "plain" (`user: Hi`), "markdown" (`**user:** Hi`) or "xml" (the content is escaped).

    Raises:
        InvalidArgumentError: The format is unknown.
    """
    format_type = check_choice(FormatType, format_type, "format_type", InvalidArgumentError)
    if format_type is FormatType.XML:
        return "\n".join(["<messages>", *map(_as_xml, messages), "</messages>"])
    label = "**{}:** {}" if format_type is FormatType.MARKDOWN else "{}: {}"
    return "\n".join(label.format(message.role.value, _content(message)) for message in messages)


def _content(message: Message) -> str:
    """The message's text and its tool calls."""
    parts = [message.text] if message.text else []
    for call in message.tool_calls or []:
        function = call.get("function")
        if not isinstance(function, dict):
            function = call
        arguments = function.get("arguments", "")
        if not isinstance(arguments, str):
            arguments = json.dumps(arguments, ensure_ascii=False, default=str)
        parts.append(f"[calls {function.get('name')}({arguments})]")
    return " ".join(parts)


def _as_xml(message: Message) -> str:
    content = escape(_NOT_XML.sub("\ufffd", _content(message)), _LINE_ENDS)
    return f"  <message>\n    <role>{message.role.value}</role>\n    <content>{content}</content>\n  </message>"
