"""The session of an agent's run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from dynamiq_memory import ConfigurationError, Memory

# What a user_id is written as by mistake.
_MISSPELT = frozenset({"userid", "user", "user-id", "uid"})


def check_user(memory: Memory, context: Any, configurable: Mapping[str, Any]) -> None:
    """Check that a run names its user.

    Raises:
        ConfigurationError: It does not, and neither does the memory's default filter.
    """
    if isinstance(memory.filters.get("user_id"), str) or _named("user_id", context, configurable) is not None:
        return
    given = sorted(str(key) for key in (*_keys(context), *configurable) if str(key).lower() in _MISSPELT)
    hint = f" (it names {given[0]!r}: write 'user_id')" if given else ""
    raise ConfigurationError(
        f"this run names no user{hint}, so its messages would be stored for nobody: pass user_id in context or "
        "config['configurable'], also beside a snapshot's config, such as {'configurable': "
        "{**snapshot.config['configurable'], 'user_id': …, 'session_id': …}}; or give "
        "DynamiqMemoryMiddleware(require_user=False) if runs have no users"
    )


def names_user(context: Any, configurable: Mapping[str, Any]) -> bool | None:
    """Whether a run names a user; None if it does not, but has a key that looks like a misspelt one."""
    if _named("user_id", context, configurable) is not None:
        return True
    misspelt = any(str(key).lower() in _MISSPELT for key in (*_keys(context), *configurable))
    return None if misspelt else False


def _keys(context: Any) -> Iterable[Any]:
    return context if isinstance(context, Mapping) else getattr(context, "__dict__", ())


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


def thread_of(configurable: Mapping[str, Any]) -> str | None:
    """Return the checkpointer's thread that keeps the agent's state.

    None if no checkpointer does, so that the client decides what the state is; or if the agent is part of another
    graph, which decides that.
    """
    if configurable.get("__pregel_checkpointer") is None or agent_of(configurable):
        return None
    return str(configurable.get("thread_id"))


def agent_of(configurable: Mapping[str, Any]) -> str:
    """Name the run of an agent within another graph, where agents may run side by side; empty for any other agent."""
    return str(configurable.get("checkpoint_ns") or "").rpartition("|")[0]


def _named(name: str, context: Any, configurable: Mapping[str, Any]) -> Any:
    value = context.get(name) if isinstance(context, Mapping) else getattr(context, name, None)
    return configurable.get(name) if value is None else value
