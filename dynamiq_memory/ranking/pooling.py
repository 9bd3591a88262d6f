"""Scores that take into account what was said around a message.

Messages of a conversation are short and lean on each other: a question says what its answer is about. So each message
that matches a query gets a part of the scores of the message before it and of the one after it, and of the best score
in its session. Messages that do not match stay out. `docs/retrieval.md` has the measurements.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from itertools import compress, count, repeat
from typing import Any, TypeVar

from dynamiq_memory.ranking import scores as parts
from dynamiq_memory.ranking.scores import Scores

Document = TypeVar("Document", bound=Hashable)

# The best of the values tried on the development conversations of benchmarks/retrieval.py; the optimum is flat.
NEIGHBOURS = 0.4
SESSION = 0.4


def in_sessions(
    documents: Iterable[Document], session_of: Callable[[Document], Hashable], position_of: Callable[[Document], Any]
) -> list[list[Document]]:
    """Group messages by their sessions, each in order.

    Args:
        documents: The messages.
        session_of: Returns the session of a message, with its user.
        position_of: Returns a message's position in the order.
    """
    sessions: defaultdict[Hashable, list[Document]] = defaultdict(list)
    for document in sorted(documents, key=position_of):
        sessions[session_of(document)].append(document)
    return list(sessions.values())


def pooled(scores: Mapping[Document, float], sessions: Iterable[Sequence[Document]]) -> Scores[Document]:
    """Add to the score of each matching message a part of the scores around it.

    Args:
        scores: The scores of the messages that match, all positive.
        sessions: The messages of each session within the filter, in order; each with a match is in one of them.

    Returns:
        The scores, in another order.
    """
    if len(scores) < 2:
        return Scores(scores, lambda document: {parts.WORDS: scores[document]})
    raised: dict[Document, float] = {}
    of_session: dict[Document, float] = {}
    for session in sessions:
        # With a 0 at the end, which is also what comes before the first.
        own = [*map(scores.get, session, repeat(0.0)), 0.0]
        share = SESSION * max(own)
        if not share:
            continue
        for number in compress(count(), own):
            document = session[number]
            raised[document] = own[number] + NEIGHBOURS * (own[number - 1] + own[number + 1]) + share
            of_session[document] = share

    def parts_of(document: Document) -> dict[str, float]:
        own, share = scores[document], of_session[document]
        near = max(0.0, raised[document] - own - share)
        return {parts.WORDS: own, parts.NEIGHBOURS: near, parts.SESSION: share}

    return Scores(raised, parts_of)
