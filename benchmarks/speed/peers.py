"""Peers: what frameworks store conversations with, at the same durability. None of them searches.

A peer that cannot read the newest messages alone reads the whole session, which has a hundred.
"""

from __future__ import annotations

import asyncio
import sqlite3
import uuid
from collections.abc import Callable, Coroutine, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.speed.contests import Contestant
from benchmarks.speed.messages import SCRATCH, Case, Row, role_of
from benchmarks.speed.ours import APPENDS, NEWEST, TASKS, THREADS
from dynamiq_memory import Memory, MemoryBackend

if TYPE_CHECKING:
    from langchain_core.chat_history import BaseChatMessageHistory

_SESSION = "session-1"


class Peer(Contestant):
    """A peer with a message type of its own, whose methods may be asynchronous.

    A subclass stores the messages of a session (`put`), reads the newest (`get`) and replaces them all (`set`).
    """

    def __init__(self) -> None:
        """Make an event loop."""
        self._runner = asyncio.Runner()

    def message(self, text: str, *, answer: bool = False) -> Any:
        """Make a message."""
        raise NotImplementedError

    def put(self, session: str, messages: Sequence[Any]) -> object:
        """Append messages to a session."""
        raise NotImplementedError

    def get(self, session: str) -> object:
        """Read the newest messages of a session."""
        raise NotImplementedError

    def set(self, session: str, messages: Sequence[Any]) -> object:
        """Replace the messages of a session."""
        raise NotImplementedError

    def load(self, rows: Sequence[Row]) -> None:
        """Append the messages of each session."""
        sessions: dict[str, list[Any]] = {}
        for row in rows:
            message = self.message(row.text, answer=row.role.value == "assistant")
            sessions.setdefault(f"{row.user}/{row.session}", []).append(message)
        for session, messages in sessions.items():
            self.put(session, messages)

    def append(self, case: Case) -> object:
        """Append a message."""
        return self.put(f"{case.user}/{SCRATCH}", [self.message(case.texts[0])])

    def batch(self, case: Case) -> object:
        """Append a hundred messages."""
        return self.put(f"{case.user}/{SCRATCH}", self._messages(case.texts))

    def newest(self, case: Case) -> object:
        """Read the newest messages of a session."""
        return self.get(f"{case.user}/{_SESSION}")

    def replace(self, case: Case) -> object:
        """Replace a session."""
        return self.set(f"{case.user}/{SCRATCH}", self._messages(case.texts[:50]))

    def run(self, work: Coroutine[Any, Any, Any]) -> object:
        """Wait for a coroutine."""
        return self._runner.run(work)

    def close(self) -> None:
        """Close what is open."""
        self._runner.close()

    def _messages(self, texts: Sequence[str]) -> list[Any]:
        return [self.message(text, answer=role_of(n).value == "assistant") for n, text in enumerate(texts)]


class OpenAIAgents(Peer):
    """SQLiteSession of openai-agents, which puts its file into WAL mode."""

    name = "openai-agents SQLiteSession"

    def __init__(self, path: Path) -> None:
        """Open no session yet."""
        from agents import SQLiteSession

        super().__init__()
        self._make, self._path = SQLiteSession, path
        self._sessions: dict[str, Any] = {}

    def message(self, text: str, *, answer: bool = False) -> Any:
        """Make an item."""
        return {"role": "assistant" if answer else "user", "content": text}

    def put(self, session: str, messages: Sequence[Any]) -> object:
        """Append items."""
        return self.run(self._of(session).add_items(list(messages)))

    def get(self, session: str) -> object:
        """Read the newest items."""
        return self.run(self._of(session).get_items(NEWEST))

    def set(self, session: str, messages: Sequence[Any]) -> object:
        """Clear the session and append."""
        self.run(self._of(session).clear_session())
        return self.put(session, messages)

    def open_and_append(self, case: Case) -> object:
        """Open a session, append and close it."""
        with closing(self._make(f"{case.user}/{SCRATCH}", self._path)) as session:
            return self.run(session.add_items([self.message(case.texts[0])]))

    def close(self) -> None:
        """Close the sessions."""
        for session in self._sessions.values():
            session.close()
        super().close()

    def _of(self, session: str) -> Any:
        if session not in self._sessions:
            self._sessions[session] = self._make(session, self._path)
        return self._sessions[session]


class LangChainHistory(Peer):
    """A chat message history of LangChain, made for each call, as a chain does.

    Args:
        name: Its name in the tables.
        make: Makes the history of a session.
    """

    def __init__(self, name: str, make: Callable[[str], BaseChatMessageHistory]) -> None:
        """Import LangChain's messages."""
        from langchain_core.messages import AIMessage, HumanMessage

        super().__init__()
        self.name = name
        self._make, self._answer, self._question = make, AIMessage, HumanMessage

    def message(self, text: str, *, answer: bool = False) -> Any:
        """Make a message."""
        return (self._answer if answer else self._question)(text)

    def put(self, session: str, messages: Sequence[Any]) -> None:
        """Add messages."""
        self._make(session).add_messages(messages)

    def get(self, session: str) -> object:
        """Read the session, and keep the newest messages."""
        return self._make(session).messages[-NEWEST:]

    def set(self, session: str, messages: Sequence[Any]) -> None:
        """Clear the session and add messages."""
        history = self._make(session)
        history.clear()
        history.add_messages(messages)


class LlamaIndexMemory(Peer):
    """A memory of LlamaIndex, for each session.

    Args:
        name: Its name in the tables.
        make: Makes the memory of a session.
    """

    def __init__(self, name: str, make: Callable[[str], Any]) -> None:
        """Import LlamaIndex's messages."""
        from llama_index.core.llms import ChatMessage

        super().__init__()
        self.name = name
        self._make, self._message = make, ChatMessage
        self._memories: dict[str, Any] = {}

    def message(self, text: str, *, answer: bool = False) -> Any:
        """Make a message."""
        return self._message(text, role="assistant" if answer else "user")

    def put(self, session: str, messages: Sequence[Any]) -> object:
        """Put messages."""
        return self.run(self._of(session).aput_messages(list(messages)))

    def get(self, session: str) -> object:
        """Get the messages for a prompt."""
        return self.run(self._of(session).aget())

    def set(self, session: str, messages: Sequence[Any]) -> object:
        """Set the messages of the session."""
        return self.run(self._of(session).aset(list(messages)))

    def _of(self, session: str) -> Any:
        if session not in self._memories:
            self._memories[session] = self._make(session)
        return self._memories[session]


class LlamaIndexStore(Peer):
    """SQLAlchemyChatStore of LlamaIndex."""

    name = "LlamaIndex SQLAlchemyChatStore"

    def __init__(self, engine: Any) -> None:
        """Wrap an asynchronous engine."""
        from llama_index.core.llms import ChatMessage
        from llama_index.core.storage.chat_store.sql import SQLAlchemyChatStore

        super().__init__()
        self._message, self._engine = ChatMessage, engine
        self._store = SQLAlchemyChatStore("llama_index_store", async_engine=engine)

    def message(self, text: str, *, answer: bool = False) -> Any:
        """Make a message."""
        return self._message(text, role="assistant" if answer else "user")

    def put(self, session: str, messages: Sequence[Any]) -> object:
        """Add messages."""
        return self.run(self._store.add_messages(session, list(messages)))

    def get(self, session: str) -> object:
        """Read the newest messages; the store reads the session from a place on."""
        return self.run(self._store.get_messages(session, offset=NEWEST))

    def set(self, session: str, messages: Sequence[Any]) -> object:
        """Set the messages of the session."""
        return self.run(self._store.set_messages(session, list(messages)))

    def tasks_one_session(self, case: Case) -> object:
        """Append to one session from many tasks."""
        return self._in_tasks(case, lambda _: SCRATCH)

    def tasks_own_sessions(self, case: Case) -> object:
        """Append to eight sessions from many tasks."""
        return self._in_tasks(case, lambda n: f"{SCRATCH}-{n % THREADS}")

    def close(self) -> None:
        """Close the engine."""
        self.run(self._engine.dispose())
        super().close()

    def _in_tasks(self, case: Case, session: Callable[[int], str]) -> object:
        async def work(number: int) -> None:
            for text in case.texts[:APPENDS]:
                await self._store.add_message(f"{case.user}/{session(number)}", self.message(text))

        async def everything() -> None:
            await asyncio.gather(*map(work, range(TASKS)))

        return self.run(everything())


def langchain_sql(path: Path) -> Peer:
    """SQLChatMessageHistory of langchain-community."""
    import sqlalchemy as sa
    from langchain_community.chat_message_histories import SQLChatMessageHistory

    _use_wal(path)
    engine = sa.create_engine(f"sqlite:///{path}")
    return LangChainHistory(
        "langchain-community SQLChatMessageHistory", lambda session: SQLChatMessageHistory(session, connection=engine)
    )


def langchain_postgres(url: str) -> Peer:
    """PostgresChatMessageHistory of langchain-postgres, on an open connection."""
    import psycopg
    from langchain_postgres import PostgresChatMessageHistory

    connection = psycopg.connect(url, autocommit=True)
    PostgresChatMessageHistory.create_tables(connection, "langchain_postgres")

    def make(session: str) -> Any:
        name = str(uuid.uuid5(uuid.NAMESPACE_OID, session))
        return PostgresChatMessageHistory("langchain_postgres", name, sync_connection=connection)

    return LangChainHistory("langchain-postgres PostgresChatMessageHistory", make)


def llama_index_memory(path: Path) -> Peer:
    """The memory of LlamaIndex."""
    from llama_index.core.memory import Memory as LlamaMemory
    from sqlalchemy.ext.asyncio import create_async_engine

    _use_wal(path)
    engine = create_async_engine(f"sqlite+aiosqlite:///{path}")
    return LlamaIndexMemory(
        "LlamaIndex Memory", lambda session: LlamaMemory.from_defaults(session, async_engine=engine)
    )


def llama_index_store(url: str, path: Path | None = None) -> Peer:
    """SQLAlchemyChatStore of LlamaIndex."""
    from sqlalchemy.ext.asyncio import create_async_engine

    if path is not None:
        _use_wal(path)
    return LlamaIndexStore(create_async_engine(url))


def ours_for_langchain(backend: MemoryBackend) -> Peer:
    """Our history for LangChain."""
    from langchain_dynamiq_memory import DynamiqChatMessageHistory

    memory = Memory(backend=backend)
    return LangChainHistory("ours", lambda session: DynamiqChatMessageHistory(memory, session, "u", limit=NEWEST))


def ours_for_llama_index(backend: MemoryBackend) -> Peer:
    """Our memory for LlamaIndex."""
    from llama_index.memory.dynamiq import DynamiqMemory

    memory = Memory(backend=backend)
    return LlamaIndexMemory("ours", lambda session: DynamiqMemory(memory, session, "u"))


def _use_wal(path: Path) -> None:
    """Put a file into WAL mode, which it stays in. SQLite's own default is to sync each commit."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
