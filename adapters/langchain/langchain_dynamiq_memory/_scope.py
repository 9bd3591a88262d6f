"""The session of an agent's run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dynamiq_memory import ConfigurationError, Memory


def scoped_to_run(memory: Memory, context: Any, configurable: Mapping[str, Any]) -> Memory:
    """Scope a memory to the session of a run.

    `user_id` and `session_id` come from the run's context (a dict or an object), else from `configurable`, else from
    the memory's default filters. Without a `session_id`, the checkpointer's thread is the session.

    Args:
        memory: The memory.
        context: The `context=…` that the agent was called with.
        configurable: `config["configurable"]` of the run.

    Raises:
        ConfigurationError: The session is missing.
        MessageError: An id is not a non-empty string.
    """
    session_id = _named("session_id", context, configurable)
    if session_id is None and not isinstance(memory.filters.get("session_id"), str):
        thread_id = configurable.get("thread_id")
        if thread_id is None:
            raise ConfigurationError(
                "no session_id for this run: pass it as agent.invoke(…, context={'session_id': …, 'user_id': …}) with "
                "create_agent(…, context_schema=…), as config={'configurable': {'session_id': …}}, or as the "
                "checkpointer's 'thread_id'"
            )
        session_id = str(thread_id)
    return memory.scoped(session_id, _named("user_id", context, configurable))


def _named(name: str, context: Any, configurable: Mapping[str, Any]) -> Any:
    value = context.get(name) if isinstance(context, Mapping) else getattr(context, name, None)
    return configurable.get(name) if value is None else value
