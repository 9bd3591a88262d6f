"""This package, through `Memory` and the adapters. The times include making the messages."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from benchmarks.speed.contests import OURS, Contestant
from benchmarks.speed.messages import BIG_SESSION, BIG_USER, SCRATCH, Case, Row, messages_of
from dynamiq_memory import Memory, MemoryBackend, Message

NEWEST = HITS = 50
THREADS, TASKS, APPENDS = 8, 64, 4


class Ours(Contestant):
    """A memory.

    Args:
        reopen: Opens the store again; None if that makes no sense.
    """

    def __init__(
        self, backend: MemoryBackend, name: str = OURS, reopen: Callable[[], MemoryBackend] | None = None
    ) -> None:
        """Wrap a backend."""
        self.name = name
        self.memory = Memory(backend=backend)
        self._runner = asyncio.Runner()
        self._threads = ThreadPoolExecutor(THREADS)
        if reopen is not None:
            self._reopen = reopen
            self.open_and_append = self._open_and_append

    def load(self, rows: Sequence[Row]) -> None:
        """Add messages of many sessions with their times."""
        self.memory.add_many(
            [
                Message(
                    role=row.role,
                    content=row.text,
                    timestamp=row.timestamp,
                    metadata={"user_id": row.user, "session_id": row.session},
                )
                for row in rows
            ]
        )

    def append(self, case: Case) -> object:
        """Add a message."""
        return self.memory.add("user", case.texts[0], {"user_id": case.user, "session_id": SCRATCH})

    def batch(self, case: Case) -> object:
        """Add a hundred messages."""
        return self.memory.add_many(messages_of(case.user, SCRATCH, case.texts))

    def newest(self, case: Case) -> object:
        """Read the newest messages of a session."""
        return self.memory.get_all(NEWEST, {"user_id": case.user, "session_id": "session-1"})

    def search(self, case: Case) -> object:
        """Search a user's messages."""
        return self.memory.search(case.query, {"user_id": BIG_USER}, HITS)

    def both(self, case: Case) -> object:
        """Give an agent recent and relevant turns of a long session."""
        filters = {"user_id": BIG_USER, "session_id": BIG_SESSION}
        return self.memory.get_agent_conversation(case.query, NEWEST, filters, "both")

    def replace(self, case: Case) -> object:
        """Replace a session."""
        messages = messages_of(case.user, SCRATCH, case.texts[:50])
        return self.memory.replace_messages({"user_id": case.user, "session_id": SCRATCH}, messages)

    def is_empty(self, _: Case) -> object:
        """Find out whether there is a message."""
        return self.memory.is_empty()

    def count(self, _: Case) -> object:
        """Count all messages."""
        return self.memory.count()

    def threads_one_session(self, case: Case) -> object:
        """Append to one session from several threads."""
        return self._in_threads(case, lambda _: SCRATCH)

    def threads_own_sessions(self, case: Case) -> object:
        """Append to a session for each thread."""
        return self._in_threads(case, lambda n: f"{SCRATCH}-{n}")

    def tasks_one_session(self, case: Case) -> object:
        """Append to one session from many tasks."""
        return self._in_tasks(case, lambda _: SCRATCH)

    def tasks_own_sessions(self, case: Case) -> object:
        """Append to eight sessions from many tasks."""
        return self._in_tasks(case, lambda n: f"{SCRATCH}-{n % THREADS}")

    def close(self) -> None:
        """Close the memory."""
        self._runner.run(self.memory.aclose())
        self._runner.close()
        self._threads.shutdown()

    def _open_and_append(self, case: Case) -> object:
        with Memory(backend=self._reopen()) as memory:
            return memory.add("user", case.texts[0], {"user_id": case.user, "session_id": SCRATCH})

    def _in_threads(self, case: Case, session: Callable[[int], str]) -> object:
        def work(number: int) -> None:
            for text in case.texts[:APPENDS]:
                self.memory.add("user", text, {"user_id": case.user, "session_id": session(number)})

        return list(self._threads.map(work, range(THREADS)))

    def _in_tasks(self, case: Case, session: Callable[[int], str]) -> object:
        async def work(number: int) -> None:
            for text in case.texts[:APPENDS]:
                await self.memory.aadd("user", text, {"user_id": case.user, "session_id": session(number)})

        async def everything() -> None:
            await asyncio.gather(*map(work, range(TASKS)))

        return self._runner.run(everything())
