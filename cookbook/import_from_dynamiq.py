"""Open a database of the `dynamiq` package: all its messages are there, and can be filtered and searched.

The table is upgraded in place when it is first opened, in one transaction. Keep a copy of the file if the `dynamiq`
package needs to read it again.
"""

from __future__ import annotations

import json
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path

from dynamiq_memory import Memory
from dynamiq_memory.backends import SQLite

# Rows as written by dynamiq's SQLite backend, with the user in the JSON of `metadata`.
OLD_MESSAGES = [
    ("user", "My dog is called Rex and he is afraid of thunder.", "ann", 1_700_000_000.0),
    ("assistant", "Poor Rex. A dark, quiet room helps.", "ann", 1_700_000_005.0),
    ("user", "Book the dentist for Friday.", "ann", 1_700_086_400.0),
    ("assistant", "Done: Friday at 9.", "ann", 1_700_086_404.0),
    ("user", "My dog is called Luna.", "ben", 1_700_090_000.0),
]


def write_old_file(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(
            "CREATE TABLE conversations (id TEXT PRIMARY KEY, role TEXT NOT NULL, content TEXT NOT NULL, "
            "metadata TEXT, timestamp REAL)"
        )
        rows = [
            (f"old-{number}", role, content, json.dumps({"user_id": user, "timestamp": timestamp}), timestamp)
            for number, (role, content, user, timestamp) in enumerate(OLD_MESSAGES, start=1)
        ]
        connection.executemany("INSERT INTO conversations VALUES (?, ?, ?, ?, ?)", rows)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "old.db"
        write_old_file(path)

        with Memory(backend=SQLite(path)) as memory:
            print(f"in the old file: {len(OLD_MESSAGES)}, found: {memory.count()}")
            for message in memory.get_all():
                print(f"  {message.id} {message.user_id} {message.timestamp:.0f} {message.role}: {message.text}")

            print("\nAnn's dog, ranked:")
            for message in memory.search("What is my dog called?", filters={"user_id": "ann"}):
                print(f"  {message.score:.2f} {message.text}")


if __name__ == "__main__":
    main()
