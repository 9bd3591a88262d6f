"""The parts of texts without spaces: identifiers, words with hyphens, numbers, hashes.

People write the same thing in several ways: `getUserName` and "get user name", "e-mail" and "email", `gpt-4o` and
"GPT 4o", "+49 30 1234-567" and "+49301234567". So such a word gives its parts, and itself without separators.
"""

from __future__ import annotations

import re

import regex

from dynamiq_memory.ranking.cache import LONGEST_WORD

_CONTRACTION = re.compile(r"'(?:s|t|d|m|ll|ve|re)(?![^\W_])", re.IGNORECASE)
_BETWEEN_NUMBERS = re.compile(r"[ ,/()]+")
_JOINER = re.compile(r"[_.'-]")
BETWEEN_WORDS = re.compile(r"[_.\- ,/()]+")
"""The characters between words that are written as one; an apostrophe belongs to the word."""
# Words as in getUserName and HTTPServer, and digits.
_PART = regex.compile(r"\p{Lu}+(?!\p{Ll})|\p{Lu}?[\p{Ll}\p{M}]+|\p{Nd}+|(?:(?!\p{Nd})[\p{L}\p{M}\p{N}])+")
# A word that changes more often between letters and digits is a code.
_MOST_PARTS = 4
# 1,000,000 and 3.000,50, but not the groups of a phone number.
_GROUPED = re.compile(r"(?<!\d)\d{1,3}([.,' ])\d{3}(?:\1\d{3}){0,6}(?!\d|[ .,'-]?\d{3})")
# Such a number may as well be several: "rooms 101,202", "bus 24 100 seats", 10.100.200.300.
_SEVERAL = re.compile(r"\d{3}\D|\d+ |(?:\d+\.){3}")
# From the beginning of digits only: a long run of them would take quadratic time.
_NUMBER = re.compile(r"(?<!\d)\d++(?:(?:[ .,'/-]|\) ?| ?\()\d++){1,7}")
_DIGITS = re.compile(r"\d+")
_LONG = re.compile(r"\d{8,}")
_DECIMAL = re.compile(r"\d+(?:[.,]\d+)+")
_HASH = re.compile(r"(?=[a-f]*\d)(?=\d*[a-f])[0-9a-f]{7,}", re.IGNORECASE)
# Git shows this many characters of a hash, and local phone numbers have this many digits.
_SHORT = 7


def parts_of(word: str) -> list[str]:
    """Return the parts of a word, and the whole.

    Args:
        word: Letters and digits, joined by `_`, `-`, `.`, an apostrophe, or what separates the digits of numbers.
    """
    letters = _CONTRACTION.sub("", word)  # parts of contractions are not words
    if letters.isalpha() and (letters.islower() or letters[1:].islower() or letters == letters.upper()):
        return [word]
    whole = _JOINER.sub("", letters)
    if _HASH.fullmatch(whole):
        return list(dict.fromkeys([*_JOINER.split(letters), whole, whole[:_SHORT]]))
    single = [
        digits
        for match in _GROUPED.finditer(letters)
        if _SEVERAL.match(match[0])
        for digits in _DIGITS.findall(match[0])
    ]
    letters = _GROUPED.sub(lambda match: "".join(_DIGITS.findall(match[0])), letters)
    found = [part for each in _BETWEEN_NUMBERS.split(letters) for part in _parts_of_one(each)]
    return found + single + _numbers(letters)


def _parts_of_one(word: str) -> list[str]:
    found: list[str] = []
    for joined in _JOINER.split(word):
        parts = _PART.findall(joined)
        if _HASH.fullmatch(joined):
            parts = [joined, joined[:_SHORT]]
        found += parts if len(parts) <= _MOST_PARTS else [joined]
    whole = _JOINER.sub("", word)
    if len(found) > 1 and not whole.isdigit() and len(whole) <= LONGEST_WORD:
        found.append(whole)
    return found


def _numbers(word: str) -> list[str]:
    """Return each number with separators as one, and the end of each long number."""
    found = []
    for match in _NUMBER.finditer(word):
        digits = re.sub(r"\D", "", match[0])
        if len(digits) < 4 and _DECIMAL.fullmatch(match[0]):
            found.append(match[0].replace(",", "."))
        elif len(digits) >= (7 if " " in match[0] else 4):
            found.append(digits)
    return found + [each[-_SHORT:] for each in _LONG.findall(" ".join([word, *found]))]
