"""Conversation memory for AI agents."""

__all__: list[str] = []
