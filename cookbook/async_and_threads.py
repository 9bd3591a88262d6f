"""Many writers in one session: concurrent asyncio tasks and threads, and nothing is lost or duplicated.

Every method of `Memory` has an asynchronous twin; its name starts with `a`.
"""

from __future__ import annotations

import asyncio
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from dynamiq_memory import Memory
from dynamiq_memory.backends import SQLite

TASKS = 100
THREADS = 8
PER_THREAD = 25
SCOPE = {"user_id": "ann", "session_id": "busy"}


async def write_with_tasks(memory: Memory) -> None:
    async with asyncio.TaskGroup() as group:
        for number in range(TASKS):
            group.create_task(memory.aadd("user", f"task {number}", metadata=SCOPE))


def write_in_thread(memory: Memory, thread: int) -> None:
    for number in range(PER_THREAD):
        memory.add("user", f"thread {thread}, message {number}", metadata=SCOPE)


async def main() -> None:
    expected = {f"task {number}" for number in range(TASKS)} | {
        f"thread {thread}, message {number}" for thread in range(THREADS) for number in range(PER_THREAD)
    }
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(THREADS) as pool:
        async with Memory(backend=SQLite(Path(folder) / "chat.db")) as memory:
            loop = asyncio.get_running_loop()
            threads = [loop.run_in_executor(pool, write_in_thread, memory, number) for number in range(THREADS)]
            # Both write to the same session of the same file at the same time.
            await asyncio.gather(write_with_tasks(memory), *threads)

            stored = [message.text for message in await memory.aget_all(filters=SCOPE)]
            print(f"written: {len(expected)} by {TASKS} tasks and {THREADS} threads")
            print(f"stored:  {await memory.acount(SCOPE)}")
            print(f"lost: {len(expected - set(stored))}, duplicated: {len(stored) - len(set(stored))}")

            # The messages of each writer stay in the order in which they were written.
            first = [text for text in stored if text.startswith("thread 0,")]
            print(f"thread 0 in order: {first == [f'thread 0, message {n}' for n in range(PER_THREAD)]}")

            best = (await memory.asearch("task 42", filters=SCOPE, limit=1))[0]
            print(f"search for 'task 42': {best.text}")


if __name__ == "__main__":
    asyncio.run(main())
