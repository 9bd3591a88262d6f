"""Tokenizers: convert a text to the terms that keyword ranking counts."""

from __future__ import annotations

import hashlib
import re
import threading
import unicodedata
from collections.abc import Callable, Collection, Iterable
from functools import partial
from itertools import pairwise
from typing import Any

import regex
import Stemmer

from dynamiq_memory.exceptions import ConfigurationError
from dynamiq_memory.ranking.cache import LONGEST_WORD, Cache
from dynamiq_memory.ranking.stop_words import BY_LANGUAGE

Tokenize = Callable[[str], list[str]]
"""Any function that converts a text to terms. It must always return the same terms for the same text."""

# Scripts written without spaces between words. Their terms are pairs of neighbouring characters.
_UNSPACED = r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Hangul}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\u30fc\u3005]"
_SPACED_WORD = rf"(?:(?!{_UNSPACED})[\p{{L}}\p{{M}}\p{{N}}])+(?:['\u2019]\p{{L}}+)*"
_TERM = regex.compile(rf"{_UNSPACED}[{_UNSPACED}\p{{M}}]*|{_SPACED_WORD}", regex.V1)
# Each word; in scripts without spaces, each character with its marks.
WORD = regex.compile(rf"{_UNSPACED}\p{{M}}*|{_SPACED_WORD}", regex.V1)
_ASCII_TERM = re.compile(r"[a-z0-9]+(?:'[a-z]+)*")
_UNSPACED_START = regex.compile(_UNSPACED, regex.V1)
_LONG_MARKS = regex.compile(r"(\p{M}{30})\p{M}+")
_HAN = regex.compile(r"\p{Han}")
# The stemmers of these languages do not handle diacritics: they stem "résumé" like "resume" only without its accents.
_WITHOUT_DIACRITICS = ("english", "porter")
_VERSION = 1


class Tokenizer:
    """Splits a text into words by Unicode's rules, removes stop words, and reduces words to their stems.

    Case, compatibility forms (full-width letters, ligatures) and diacritics are ignored. In scripts without spaces
    (Chinese, Japanese, Korean, Thai, …), pairs of neighbouring characters and single Han characters are the terms.

    Args:
        language: A language of the Snowball stemmers (https://snowballstem.org), or None for no stemming.
        stop_words: Words to leave out. Defaults to the language's own list (only English has one); pass an empty
            collection to keep all words.

    Attributes:
        signature: Differs between tokenizers that return different terms. A stored index records the signature of the
            tokenizer that it was made with.

    Raises:
        ConfigurationError: The language has no stemmer.
    """

    def __init__(self, language: str | None = "english", stop_words: Collection[str] | None = None) -> None:
        """Create the tokenizer."""
        if language is not None and language not in Stemmer.algorithms():
            raise ConfigurationError(
                f"there is no stemmer for language={language!r}: use one of "
                f"{', '.join(sorted(Stemmer.algorithms()))}, or None for no stemming"
            )
        if isinstance(stop_words, str):
            raise ConfigurationError("stop_words must be a collection of words, not one string")
        if stop_words is None:
            stop_words = BY_LANGUAGE.get(language or "", frozenset())
        self.language = language
        self.stop_words = frozenset(_fold_case(word) for word in stop_words)
        words = hashlib.blake2b(" ".join(sorted(self.stop_words)).encode(), digest_size=4).hexdigest()
        self.signature = f"words-{_VERSION}/{language or 'unstemmed'}/{words}"
        # Snowball stemmers are not thread-safe, so each thread has its own.
        self._stemmers = threading.local()
        self._terms = Cache(self._reduce)

    def __call__(self, text: str) -> list[str]:
        """Return the terms of a text in order, including repetitions."""
        if text.isascii():
            return list(filter(None, map(self._terms.__getitem__, _ASCII_TERM.findall(text.lower()))))
        terms: list[str] = []
        for piece in _TERM.findall(_fold_case(text)):
            if _UNSPACED_START.match(piece):
                terms += _character_terms(piece)
            elif term := self._terms[piece]:
                terms.append(term)
        return terms

    @property
    def keeping_stop_words(self) -> Tokenizer:
        """The same tokenizer without stop words, for queries that consist only of stop words."""
        return Tokenizer(self.language, ())

    def _reduce(self, word: str) -> str:
        word = word.replace("\u2019", "'")
        if word in self.stop_words:
            return ""
        if self.language in _WITHOUT_DIACRITICS:
            word = _fold_diacritics(word)
        if self.language is not None and len(word) <= LONGEST_WORD:
            stemmer = getattr(self._stemmers, "stemmer", None)
            if stemmer is None:
                stemmer = self._stemmers.stemmer = Stemmer.Stemmer(self.language, 0)  # our cache serves all threads
            word = stemmer.stemWord(word)
        return _fold_diacritics(word)


def signature_of(tokenize: Tokenize) -> str:
    """Return a tokenizer's `signature`, or the function's qualified name if it has none."""
    signature = getattr(tokenize, "signature", None)
    if isinstance(signature, str):
        return signature
    if isinstance(tokenize, partial):
        return f"{signature_of(tokenize.func)}{tokenize.args!r}{tokenize.keywords!r}"
    kind: Any = tokenize if hasattr(tokenize, "__qualname__") else type(tokenize)
    return f"{getattr(kind, '__module__', None) or 'builtins'}.{kind.__qualname__}"


def _character_terms(run: str) -> list[str]:
    pairs = [a + b for a, b in pairwise(run)]
    if not pairs:
        return [run]
    return [*pairs, *_HAN.findall(run)]


def _fold_case(text: str) -> str:
    # Normalising takes quadratic time on a run of combining marks. No language uses more than 30 in a row (UAX #15,
    # Stream-Safe Text Format).
    text = _LONG_MARKS.sub(r"\1", text)
    return unicodedata.normalize("NFKC", text).casefold().replace("\u2019", "'")


def _fold_diacritics(word: str) -> str:
    if word.isascii():
        return word
    split = unicodedata.normalize("NFD", word)
    return unicodedata.normalize("NFC", "".join(c for c in split if not "\u0300" <= c <= "\u036f"))


def terms_of(tokenize: Tokenize, text: str) -> list[str]:
    """Call a tokenizer and check what it returns.

    Raises:
        ConfigurationError: It does not return strings.
    """
    if isinstance(tokenize, Tokenizer):
        return tokenize(text)
    returned: Any = tokenize(text)
    if isinstance(returned, Iterable) and not isinstance(returned, str | bytes):
        terms = list(returned)
        if all(isinstance(term, str) for term in terms):
            return terms
    raise ConfigurationError(f"the tokenizer {signature_of(tokenize)} must return a list of strings")
