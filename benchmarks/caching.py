"""How much of a prompt is the same as for the question before, and does it still answer? Measures both together.

    python benchmarks/caching.py locomo10.json beam.json

A provider that caches prompts charges less for the part that begins like the prompt before. Each conversation is played
turn by turn; after each question of its user, the prompt is compared with the one before. Then the questions about the
conversation are asked, and recall is the share of the answering messages that are given.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from dynamiq_memory import (
    Explanation,
    Memory,
    MemoryRetrievalStrategy,
    Message,
    MessageRole,
    Placement,
    Window,
    count_tokens_approximately,
)

# When run as a script, make `benchmarks` importable.
sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.conversations import Conversation, read

# Maximum numbers of messages, and of tokens.
LIMITS = (20, 50, 100)
TOKENS = (4_000, 16_000)
NO_LIMIT = 100_000
# What BOTH gives to the recent turns, where the window is stable.
RECENT_SHARES = (0.25, 0.75)


@dataclass(frozen=True, slots=True)
class Way:
    """Settings of a memory, with a maximum number of messages or of tokens."""

    strategy: MemoryRetrievalStrategy
    window: Window
    placement: Placement
    messages: int | None
    tokens: int | None
    recent_share: float = 0.25

    def explain(self, memory: Memory, query: str, filters: dict[str, Any]) -> Explanation:
        """Pick messages."""
        memory.max_tokens, memory.recent_share = self.tokens, self.recent_share
        return memory.explain_agent_conversation(
            query,
            self.messages or NO_LIMIT,
            filters,
            self.strategy,
            window=self.window,
            placement=self.placement,
        )


@dataclass(frozen=True, slots=True)
class Result:
    """The result of one way, over all conversations.

    Attributes:
        unchanged: The mean share of tokens that are unchanged, over prompts that do not have all that is stored.
        used: How much of the limit these prompts use, on average.
        recall: The mean share of the answering messages that are given.
    """

    strategy: str
    recent_share: float
    window: str
    placement: str
    messages: int | None
    tokens: int | None
    unchanged: float
    used: float
    recall: float


def ways() -> Iterator[Way]:
    """Yield all ways that differ: ALL has nothing to place, and only what comes first has a window that matters."""
    for messages, tokens in [*((limit, None) for limit in LIMITS), *((None, tokens) for tokens in TOKENS)]:
        for window in Window:
            yield Way(MemoryRetrievalStrategy.ALL, window, Placement.CHRONOLOGICAL, messages, tokens)
        for strategy in (MemoryRetrievalStrategy.RELEVANT, MemoryRetrievalStrategy.BOTH):
            for placement in Placement:
                yield Way(strategy, Window.SLIDING, placement, messages, tokens)
        for recent_share in RECENT_SHARES:
            last = (Placement.BEFORE_QUESTION, messages, tokens, recent_share)
            yield Way(MemoryRetrievalStrategy.BOTH, Window.STABLE, *last)


@dataclass(slots=True)
class Measured:
    """What has been measured of one way so far; see `Result`."""

    unchanged: list[float] = field(default_factory=list)
    used: list[float] = field(default_factory=list)
    recalls: list[float] = field(default_factory=list)
    before: list[Message] = field(default_factory=list)

    def add_prompt(self, way: Way, prompt: list[Message], given: int, stored: int) -> None:
        """Compare a prompt with the one before, if it lacks something that is stored."""
        if self.before and given < stored:
            self.unchanged.append(_unchanged(prompt, self.before))
            size = given if way.tokens is None else sum(map(count_tokens_approximately, prompt))
            self.used.append(size / (way.tokens or way.messages or 1))
        self.before = prompt

    def result(self, way: Way) -> Result:
        """Average."""
        names = (way.window.value, way.placement.value, way.messages, way.tokens)
        return Result(
            way.strategy.value,
            way.recent_share,
            *names,
            *(fmean(each or [math.nan]) for each in (self.unchanged, self.used, self.recalls)),
        )


def measure(conversation: Conversation, measured: dict[Way, Measured], every: int) -> None:
    """Play a conversation, and ask the questions about it."""
    user = {"user_id": conversation.user_id}
    questions = [place for place, message in enumerate(conversation.messages) if message.role is MessageRole.USER]
    stored = 0
    with Memory() as memory:
        for number, place in enumerate(questions):
            # As it was when the question had just been stored.
            memory.add_many(conversation.messages[stored : place + 1])
            stored = place + 1
            for way, each in measured.items():
                if (number + 1) % every == 0:
                    each.before = way.explain(memory, conversation.messages[place].text, user).conversation
                elif number % every == 0:
                    given = way.explain(memory, conversation.messages[place].text, user)
                    each.add_prompt(way, given.conversation, len(given), stored)
        memory.add_many(conversation.messages[stored:])
        for way, each in measured.items():
            each.before = []
            for question in conversation.questions:
                found = {pick.message.id for pick in way.explain(memory, question.text, user)}
                each.recalls.append(len(found & question.gold) / len(question.gold))


def _unchanged(prompt: Sequence[Message], before: Sequence[Message]) -> float:
    """The share of the tokens of a prompt in the messages at its beginning that are those of the prompt before."""
    tokens = [count_tokens_approximately(message) for message in prompt]
    same = 0
    for message, other in zip(prompt, before, strict=False):
        if message.to_openai() != other.to_openai():
            break
        same += 1
    return sum(tokens[:same]) / sum(tokens)


def show(results: Sequence[Result]) -> None:
    """Print a row for each way."""
    console = Console()
    columns = ("limit", "strategy", "window", "placement", "unchanged", "used", "recall")
    table = Table(*columns, box=None) if not console.is_terminal else Table(*columns)
    for r in results:
        limit = f"{r.messages} messages" if r.tokens is None else f"{r.tokens:,} tokens"
        figures = (f"{r.unchanged:.3f}", f"{r.used:.2f}", f"{r.recall:.3f}")
        name = r.strategy if r.recent_share == RECENT_SHARES[0] else f"{r.strategy}, {r.recent_share}"
        table.add_row(limit, name, r.window, r.placement, *figures)
    console.print(table)


def main(
    paths: Annotated[list[Path], typer.Argument(help="Files with conversations.", exists=True, dir_okay=False)],
    every: Annotated[int, typer.Option(min=2, help="Compare one prompt in so many with the one before it.")] = 3,
    json_file: Annotated[Path | None, typer.Option("--json", help="Also write the results to this file.")] = None,
) -> None:
    """Measure the unchanged share of prompts and the recall of conversations, side by side."""
    report = {}
    for path in paths:
        conversations = read(path)
        console = Console(stderr=True)
        measured = {way: Measured() for way in ways()}
        for conversation in track(
            conversations, path.name, console=console, transient=True, disable=not console.is_terminal
        ):
            measure(conversation, measured, every)
        results = [each.result(way) for way, each in measured.items()]
        asked = sum(len(each.questions) for each in conversations)
        print(f"{path.name}: {len(conversations)} conversations, {asked} questions about them")
        show(results)
        report[path.name] = [asdict(result) for result in results]
    if json_file is not None:
        json_file.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
