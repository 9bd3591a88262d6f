"""The messages that the stores are filled with, and what each repetition of an operation is given."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain, islice

from dynamiq_memory import Message, MessageRole

USER_MESSAGES = 200
SESSION_MESSAGES = 100
# One more user, the same in stores of every size, with a single session.
BIG_USER, BIG_SESSION, BIG_MESSAGES = "big", "long", 500
# Sessions that are replaced, so that the repetitions do not make a small store several times larger.
SCRATCH = "scratch"
USERS = 50

SEED = 20_261_123
_EPOCH = 1_700_000_000.0
_FUNCTION_WORDS = ("the", "a", "to", "of", "and", "in", "it", "is", "that", "for", "you", "was", "on", "with", "as")


class Words:
    """Texts of 20 to 200 words: half function words, half content words with Zipf's distribution."""

    def __init__(self, seed: int, vocabulary: int = 20_000) -> None:
        """Invent the vocabulary."""
        self.random = random.Random(seed)
        syllables = [a + b for a in "bdfgklmnprstvz" for b in ("a", "e", "i", "o", "u", "an", "er", "ol")]
        words = ("".join(self.random.choices(syllables, k=self.random.randint(2, 4))) for _ in iter(int, 1))
        self.content = list(islice(dict.fromkeys(islice(words, 2 * vocabulary)), vocabulary))
        # Mandelbrot's offset. Without it, the first words would be in nearly every message, unlike the content words
        # of real conversations.
        self.weights = list(accumulate(1 / (rank + 20) for rank in range(len(self.content))))

    def text(self) -> str:
        """Return the text of a message."""
        count = self.random.randint(20, 200)
        content = self.random.choices(self.content, cum_weights=self.weights, k=count // 2)
        function = self.random.choices(_FUNCTION_WORDS, k=count - count // 2)
        return " ".join(chain.from_iterable(zip(function, content, strict=False)))

    def query(self) -> str:
        """Return a query of six content words, since stop words would cost the bare searches time."""
        return " ".join(self.random.choices(self.content, cum_weights=self.weights, k=6))


@dataclass(frozen=True, slots=True)
class Row:
    """A message to load."""

    user: str
    session: str
    number: int
    role: MessageRole
    text: str

    @property
    def timestamp(self) -> float:
        """Seconds, in the order of `number`."""
        return _EPOCH + self.number


@dataclass(frozen=True, slots=True)
class Case:
    """What one repetition of an operation is given, the same for all contestants."""

    user: str
    texts: Sequence[str]
    query: str


def rows_of(size: int) -> Iterator[Row]:
    """Yield the messages of a store by time. All users write at the same time, not one after another."""
    words = Words(SEED)
    texts = [words.text() for _ in range(min(size, 5_000))]
    users = max(1, size // USER_MESSAGES)
    every = max(1, size // BIG_MESSAGES)
    number = 0
    for position in range(size):
        turn, user = divmod(position, users)
        text = texts[position % len(texts)]
        yield Row(f"user-{user}", f"session-{turn // SESSION_MESSAGES}", number, role_of(turn), text)
        number += 1
        big, rest = divmod(position, every)
        if rest == 0 and big < BIG_MESSAGES:
            yield Row(BIG_USER, BIG_SESSION, number, role_of(big), texts[-1 - big % len(texts)])
            number += 1


def cases(count: int, size: int, seed: int) -> list[Case]:
    """Make the cases of some repetitions, for random users of a store."""
    words = Words(seed)
    batches = [[words.text() for _ in range(100)] for _ in range(5)]
    users = min(USERS, max(1, size // USER_MESSAGES))
    return [
        Case(f"user-{int(words.random.random() * users)}", words.random.choice(batches), words.query())
        for _ in range(count)
    ]


def role_of(number: int) -> MessageRole:
    """The role of a message by its number: users and assistants take turns."""
    return MessageRole.ASSISTANT if number % 2 else MessageRole.USER


def messages_of(user: str, session: str, texts: Sequence[str]) -> list[Message]:
    """Make our messages."""
    scope = {"user_id": user, "session_id": session}
    return [Message(role=role_of(number), content=text, metadata=scope) for number, text in enumerate(texts)]
