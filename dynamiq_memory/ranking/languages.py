"""The language of a word, by its script, and of a message, by its function words."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Sequence

# Scripts that one language uses most have its stemmer, whatever the tokenizer's language.
_BY_SCRIPT = {
    "ARABIC": "arabic",
    "ARMENIAN": "armenian",
    "CYRILLIC": "russian",
    "DEVANAGARI": "hindi",
    "GREEK": "greek",
    "TAMIL": "tamil",
}
# The scripts of other languages. All not named here are written in Latin letters.
_SCRIPT_OF = {
    **{language: script for script, language in _BY_SCRIPT.items()},
    "nepali": "DEVANAGARI",
    "persian": "ARABIC",
    "serbian": "CYRILLIC",
    "yiddish": "HEBREW",
}

# Languages that write compounds as one word.
COMPOUNDING = frozenset({"danish", "dutch", "finnish", "german", "norwegian", "swedish"})

# Frequent words, without those that are frequent in English; among equal counts, the first language counts.
_FUNCTION_WORDS = {
    "spanish": """
        al como con cuando cuál cuándo cuánto cuántos cómo de del dónde el en es esta está fue la las le lo
        los mi mis muy más nos para pero por que quién qué se ser sin su también tengo tiene tienes tus un una
        y
    """,
    "french": """
        au aux avec c'est ce cet cette chez combien comment d'un d'une dans de des du elle est est-ce et
        faire fait il j'ai je la le les leur ma mais mes mon n'est ne nous où pas pour puis qu'elle qu'est-ce
        qu'il quand que quel quelle quelles quels qui quoi ses sont suis sur très un une vous ça était être
    """,
    "german": """
        aber als auch auf aus bei beim das dem der dich dir doch ein eine einem einen einer es für habe haben
        hast hatte ich ihr ihre im ist kann mein meine meinem meinen meiner mich mir mit muss nach nicht noch
        nur oder schon sehr sich sie sind und uns unser vom von wann weil welche welchem welchen welcher
        welches wenn wer wie wir wird wo wurde zu zum zur
    """,
    "portuguese": """
        ao com como da das de dos e ela ele eu foi fui isso mas meu minha muito na nos não o onde os para pela
        pelo por qual quando que quem se ser sua são tem tenho um uma você é
    """,
    "italian": """
        al alla anche che con cosa da dal del della di dove gli hai ho il la le lo ma mi mia mio nel nella non
        perché quale quando quanto questo sei si sono su un una è
    """,
    "dutch": """
        aan bij dat de deze een en gaat haar heb hebben heeft het hij hoe ik je maar mijn naar niet nog om ons
        ook op te uit van voor waar wanneer wat welke werd wie wij zijn
    """,
    "swedish": """
        att av den det du en ett från för har hon hur inte jag kommer med mitt mycket nu när och om på ska
        skall som vad varför vi är
    """,
}
LANGUAGES = frozenset(_FUNCTION_WORDS)
"""The languages that `language_of` knows."""

_BY_WORD: dict[str, list[str]] = {}
for _language, _words in _FUNCTION_WORDS.items():
    for _word in _words.split():
        for _written in {_word, _word.capitalize()}:
            _BY_WORD.setdefault(_written, []).append(_language)
# Asked for each message, nearly always in vain: a set answers twice as fast as a dictionary.
_ANY = frozenset(_BY_WORD)
# The language of a message shows in its beginning.
LOOKED_AT = 50
_LEAST = 2
_LEAST_SHARE = 0.15
# Of so few words, one is enough if it is not shorter than this.
_FEW_WORDS = 4
_SHORT_WORD = 3


def stemmer_for(word: str, language: str) -> str:
    """Return the language of the stemmer for a word.

    Args:
        word: The word.
        language: The tokenizer's language, which stems Latin letters, other scripts without a stemmer of their own,
            and its own script.
    """
    if word.isascii():
        return language
    script = unicodedata.name(word[0], "").partition(" ")[0]
    return language if script == _SCRIPT_OF.get(language) else _BY_SCRIPT.get(script, language)


def language_of(words: Sequence[str]) -> str | None:
    """Return the language of a message in Latin letters: that of most of its function words.

    Args:
        words: The words of the message.

    Returns:
        A language of Snowball, or None for English, and for one that is not known or in doubt.
    """
    beginning = words[:LOOKED_AT]
    if _ANY.isdisjoint(beginning):
        return None
    if len(words) <= _FEW_WORDS:
        found = {language for word in words if len(word) >= _SHORT_WORD for language in _BY_WORD.get(word, ())}
        return found.pop() if len(found) == 1 else None
    counts = Counter(language for word in beginning for language in _BY_WORD.get(word, ()))
    language, count = counts.most_common(1)[0]
    return language if count >= max(_LEAST, _LEAST_SHARE * len(beginning)) else None
