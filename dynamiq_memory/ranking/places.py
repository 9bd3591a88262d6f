"""Where in a text the terms of a query are, for excerpts."""

from __future__ import annotations

import re
from collections import Counter, deque
from functools import cache

from dynamiq_memory.ranking.tokenizer import WORD, Tokenize, Tokenizer

_WORDS = Tokenizer()
_ASCII_WORD = re.compile(r"[A-Za-z0-9]+(?:'[A-Za-z]+)*")


def place_of(query: str, text: str, tokenize: Tokenize, span: int) -> int:
    """Return where to begin to read a text for a query.

    Args:
        query: The query.
        text: The text.
        tokenize: The store's tokenizer. Any other function is replaced by English words: it may need a whole
            text.
        span: Number of characters that are read.

    Returns:
        The position of the first word from which most terms of the query follow within the span; 0 if none occurs.
    """
    words = tokenize if isinstance(tokenize, Tokenizer) else _WORDS
    terms = frozenset(words(query))
    matching = cache(lambda word: tuple(terms.intersection(words(word))))
    hits: deque[tuple[int, tuple[str, ...]]] = deque()
    within: Counter[str] = Counter()
    place, most = 0, 0
    for word in (_ASCII_WORD if text.isascii() else WORD).finditer(text):
        # With the next character, since some scripts have pairs of characters as terms.
        if not (found := matching(text[word.start() : word.end() + 1])):
            continue
        hits.append((word.start(), found))
        within.update(found)
        while hits[0][0] < word.start() - span:
            within.subtract(hits.popleft()[1])
        if (number := sum(count > 0 for count in within.values())) > most:
            place, most = hits[0][0], number
        if most == len(terms):
            break
    return place
