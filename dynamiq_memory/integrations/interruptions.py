"""What is given instead of the missing part of an answer or a call that was cut off."""

from dynamiq_memory.conversation.interruptions import ANSWER_NOTE, CALL_NOTE
from dynamiq_memory.messages import INTERRUPTED_KEY

__all__ = ["ANSWER_NOTE", "CALL_NOTE", "INTERRUPTED_KEY"]
