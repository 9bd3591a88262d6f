"""Tokenizers: convert a text to the terms that keyword ranking counts."""

from __future__ import annotations

import hashlib
import re
import threading
import unicodedata
from collections.abc import Callable, Collection, Iterable, Iterator
from functools import cache, lru_cache, partial
from itertools import chain, islice, pairwise
from typing import Any

import regex
import Stemmer

from dynamiq_memory.exceptions import ConfigurationError
from dynamiq_memory.ranking.cache import LONGEST_WORD, Cache
from dynamiq_memory.ranking.irregular import BASE
from dynamiq_memory.ranking.languages import COMPOUNDING, LANGUAGES, LOOKED_AT, language_of, stemmer_for
from dynamiq_memory.ranking.parts import BETWEEN_WORDS, parts_of
from dynamiq_memory.ranking.stop_words import BY_LANGUAGE

Tokenize = Callable[[str], list[str]]
"""Any function that converts a text to terms. It must always return the same terms for the same text."""

# Scripts written without spaces between words. Their terms are pairs of neighbouring characters.
_UNSPACED = r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Hangul}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\u30fc\u3005]"
_SPACED = rf"[[\p{{L}}\p{{M}}\p{{N}}]--{_UNSPACED}]"


def _words(character: str) -> str:
    """The pattern of what is written as one word, and of several numbers with what may separate digits of one."""
    # Possessive, so that no text takes quadratic time.
    return rf"{character}++(?:['_.-]{character}++|(?<=\d)[ ,/)(]{{1,2}}(?=\d){character}++)*+"


_TERM = regex.compile(rf"{_UNSPACED}[{_UNSPACED}\p{{M}}]*|{_words(_SPACED)}", regex.V1)
# Each word; in scripts without spaces, each character with its marks.
WORD = regex.compile(rf"{_UNSPACED}\p{{M}}*|{_SPACED}+(?:['\u2019]\p{{L}}+)*", regex.V1)
_ASCII_TERM = re.compile(_words("[A-Za-z0-9]"))
_UNSPACED_START = regex.compile(_UNSPACED, regex.V1)
_LONG_MARKS = regex.compile(r"(\p{M}{30})\p{M}+")
_HAN = regex.compile(r"\p{Han}")
# The stemmers of these languages do not handle diacritics: they stem "résumé" like "resume" only without its accents.
_WITHOUT_DIACRITICS = ("english", "porter")
# What Unicode does not split.
_LIGATURES = str.maketrans({"œ": "oe", "æ": "ae", "ø": "o", "ł": "l", "đ": "d"})
# "And" or "so" before the article, which the stemmer leaves at the word.
_ARABIC_AND = re.compile("^[وف](?=ال..)")
# In messages of languages that write compounds as one word.
_GRAM = 5
_LONG = 100_000
# Of a text that is longer than twice this, words are found that are in so many characters at its beginning or its end.
# Each new word takes some 30 microseconds: no text holds up others for minutes.
_END = 500_000
_VERSION = 2
# Of the default tokenizer.
_EARLIER = frozenset({"words-1/english/7a2a7537"})


class Tokenizer:
    """Splits a text into words by Unicode's rules, removes stop words, and reduces words to their stems.

    Case, compatibility forms (full-width letters, ligatures) and diacritics are ignored. A word also gives
    its parts (`getUserName`, "e-mail", phone numbers). In scripts without spaces (Chinese, Japanese, Korean,
    Thai, …), pairs of neighbouring characters and single Han characters are the terms. Words in other scripts than
    Latin get the stemmer of a language of that script. A message that is not in English, as its function words show,
    has terms of its language besides. Of a text of more than 1,000,000 characters, only the words count that are among
    its first or its last 500,000 characters, wherever else they are.

    Args:
        language: A language of the Snowball stemmers (https://snowballstem.org), or None for no stemming. Another one
            than "english", the default, is taken for that of all messages.
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
        self.stop_words = _normalized_words(frozenset(stop_words))
        words = hashlib.blake2b(" ".join(sorted(self.stop_words)).encode(), digest_size=4).hexdigest()
        self.signature = f"words-{_VERSION}/{language or 'unstemmed'}/{words}"
        self._stemmers = threading.local()
        self._terms = Cache(self._reduce)
        languages = LANGUAGES if language == "english" else COMPOUNDING.intersection([language])
        self._further = {each: Cache(partial(self._more_terms, each)) for each in languages}

    def __call__(self, text: str) -> list[str]:
        """Return the terms of a text in order, including repetitions."""
        words = _written_as_one(text)
        terms: list[str] = []
        for each in filter(None, map(self._terms.__getitem__, words)):  # faster than a chain: many are stop words
            terms += each
        language = self.language
        if language == "english":
            language = language_of(words if isinstance(words, list) else list(islice(words, LOOKED_AT)))
        if language in self._further:
            terms += chain.from_iterable(map(self._further[language].__getitem__, words))
        return terms

    def words(self, text: str) -> frozenset[str]:
        """Return the distinct words of a text as stems: its terms without those that only make it easier to find."""
        found: set[str] = set()
        for word in _TERM.findall(_normalized(text)):
            unspaced = _UNSPACED_START.match(word)
            found.update(_character_terms(word) if unspaced else map(self._stem, BETWEEN_WORDS.split(word)))
        return frozenset(found - {""})

    @property
    def keeping_stop_words(self) -> Tokenizer:
        """The same tokenizer without stop words, for queries that consist only of stop words."""
        return Tokenizer(self.language, ())

    def _reduce(self, word: str) -> tuple[str, ...]:
        """Return the terms of a text that is written as one word."""
        if _UNSPACED_START.match(word):
            return tuple(_character_terms(word.casefold()))
        return tuple(filter(None, map(self._stem, parts_of(_with_ascii_digits(word)))))

    def _more_terms(self, language: str, word: str) -> tuple[str, ...]:
        """Return the terms that a word has besides, in a message in this language.

        They are added, so that a question that does not show its language still finds the message.
        """
        if _UNSPACED_START.match(word):
            return ()
        parts = [part.casefold() for part in parts_of(word) if part.isalpha() and len(part) <= LONGEST_WORD]
        parts = [part for part in parts if stemmer_for(part, language) == language]
        stems = dict.fromkeys(_fold_diacritics(self._stemmer(language).stemWord(part)) for part in parts)
        known = set(self._terms[word])  # long words are not cached
        more = [stem for stem in stems if stem not in known]
        if language in COMPOUNDING:
            more += (gram for part in parts for gram in _grams(_fold_diacritics(part)))
        return tuple(more)

    def _stem(self, word: str) -> str:
        word = word.casefold()
        if word in self.stop_words:
            return ""
        if self.language is None or len(word) > LONGEST_WORD:
            return _fold_diacritics(word)
        language = stemmer_for(word, self.language)
        if language in _WITHOUT_DIACRITICS:
            word = _fold_diacritics(word)
        if language == "english":
            word = BASE.get(word, word)
        elif language == "arabic":
            word = _ARABIC_AND.sub("", word)
        return _fold_diacritics(self._stemmer(language).stemWord(word))

    def _stemmer(self, language: str) -> Any:
        """Return this thread's stemmer: they are not thread-safe."""
        stemmers = self._stemmers.__dict__
        if language not in stemmers:
            stemmers[language] = Stemmer.Stemmer(language, 0)  # our cache serves all threads
        return stemmers[language]


def signature_of(tokenize: Tokenize) -> str:
    """Return a tokenizer's `signature`, or the function's qualified name if it has none."""
    signature = getattr(tokenize, "signature", None)
    if isinstance(signature, str):
        return signature
    if isinstance(tokenize, partial):
        return f"{signature_of(tokenize.func)}{tokenize.args!r}{tokenize.keywords!r}"
    kind: Any = tokenize if hasattr(tokenize, "__qualname__") else type(tokenize)
    return f"{getattr(kind, '__module__', None) or 'builtins'}.{kind.__qualname__}"


def earlier_signatures_of(tokenize: Tokenize) -> frozenset[str]:
    """Return the signatures of earlier versions of a tokenizer; a store indexes what they indexed again by itself."""
    return _EARLIER if signature_of(tokenize) == default_tokenizer().signature else frozenset()


@cache
def default_tokenizer() -> Tokenizer:
    """Return the tokenizer of stores that were given none: they share what it knows of words."""
    return Tokenizer()


@lru_cache(16)
def _normalized_words(words: frozenset[str]) -> frozenset[str]:
    return frozenset(_normalized(word).casefold() for word in words)


class _LongText(Iterable[str]):
    """The words of a text, as it is written, found again each time, since a list takes ten times the text's memory.

    One search for all would also keep other threads waiting until it has read the whole text.
    """

    def __init__(self, text: str, pattern: Any) -> None:
        self._text, self._pattern = text, pattern

    def __iter__(self) -> Iterator[str]:
        if len(self._text) <= 2 * _END:
            yield from self._words(self._text)
            return
        known: set[str] = set()
        beginning, end = self._text[:_END], self._text[-_END:]
        for word in self._words(beginning):
            known.add(word)
            yield word
        known.update(self._words(end))
        yield from filter(known.__contains__, self._words(self._text[_END:-_END]))
        yield from self._words(end)

    def _words(self, text: str) -> Iterator[str]:
        return (match[0] for match in self._pattern.finditer(text))


def _written_as_one(text: str) -> Iterable[str]:
    text, pattern = (text, _ASCII_TERM) if text.isascii() else (_normalized(text), _TERM)
    return pattern.findall(text) if len(text) < _LONG else _LongText(text, pattern)


def _character_terms(run: str) -> list[str]:
    pairs = [a + b for a, b in pairwise(run)]
    if not pairs:
        return [run]
    return [*pairs, *_HAN.findall(run)]


def _normalized(text: str) -> str:
    # Normalising takes quadratic time on a run of combining marks. No language uses more than 30 in a row (UAX #15,
    # Stream-Safe Text Format).
    text = _LONG_MARKS.sub(r"\1", text)
    text = unicodedata.normalize("NFKC", text)
    return text.replace("\u2019", "'").replace("\u2018", "'").replace("\u02bc", "'")


def _with_ascii_digits(word: str) -> str:
    if word.isascii() or not any(map(str.isdecimal, word)):
        return word
    return "".join(str(unicodedata.decimal(character, character)) for character in word)


def _grams(word: str) -> list[str]:
    """Return all sequences of five letters, which a compound shares with the words that it consists of."""
    return [word[start : start + _GRAM] for start in range(len(word) - _GRAM + 1)]


def _fold_diacritics(word: str) -> str:
    if word.isascii():
        return word
    split = unicodedata.normalize("NFD", word).translate(_LIGATURES)
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
