"""Long questions and long texts: what is read of them, and how often."""

from __future__ import annotations

import asyncio

import pytest

from dynamiq_memory import Memory, Message, MessageRole
from dynamiq_memory.ranking import Tokenizer, tokenizer
from dynamiq_memory.ranking.parts import parts_of
from tests.conftest import NewStore

SCOPE = {"user_id": "ann", "session_id": "s"}
PASTED = "\n".join(str(number) for number in range(10_000, 40_000))


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("through_memory", [False, True])
def test_a_question_about_a_long_text_is_found_before_it_and_after_it(
    new_store: NewStore, asynchronous: bool, through_memory: bool
) -> None:
    read: list[str] = []
    split = Tokenizer()

    def tokenize(text: str) -> list[str]:
        read.append(text)
        return split(text)

    store = new_store(tokenizer=tokenize)
    texts = ["The ferry leaves at 9:40.", "The tram was late.", "There were 25000 of them."]
    store.add_many([Message(role=MessageRole.USER, content=text, metadata=dict(SCOPE)) for text in texts])
    asked = Memory(backend=store) if through_memory else store
    for question, found in [
        (f"When does the ferry leave? {PASTED}", texts[0]),
        (f"{PASTED} Which tram was late?", texts[1]),
        (f"{' ' * 100_000}{PASTED}\n\nWhich tram was late? {' ' * 100_000}", texts[1]),
    ]:
        read.clear()
        results = asyncio.run(asked.asearch(question, SCOPE)) if asynchronous else asked.search(question, SCOPE)
        assert [message.content for message in results] == [found]
        assert max(map(len, read)) <= 1_001
    assert asked.search(PASTED, SCOPE) == []


def test_a_long_question_of_a_conversation_is_shortened_too(new_store: NewStore) -> None:
    memory = Memory(backend=new_store(), filters=SCOPE)
    for number in range(20):
        memory.add("user", f"Who is number {number}?")
        memory.add("assistant", f"The ferry leaves at {number}." if number == 3 else "Nobody.")
    for question in (f"ferry {PASTED}", f"{PASTED} ferry"):
        given = memory.get_agent_conversation(question, 2, strategy="relevant")
        assert [message.content for message in given] == ["Who is number 3?", "The ferry leaves at 3."]


@pytest.mark.parametrize("words", [10, 1_000])
def test_the_parts_of_a_long_word_are_found_once(words: int, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    def counting(word: str) -> list[str]:
        calls.append(len(word))
        return parts_of(word)

    monkeypatch.setattr(tokenizer, "parts_of", counting)
    word = "-".join(f"wort{chr(97 + number % 26)}" for number in range(words))
    terms = Tokenizer()(f"der die und nicht {word}")
    assert len(terms) > words
    assert calls.count(len(word)) <= 4


@pytest.mark.parametrize("text", ["Straße 1 000,5 getUserName 東京タワー e-mail ", "plain words, 1 000 and e-mail "])
def test_a_long_text_has_the_terms_of_its_parts(text: str) -> None:
    split = Tokenizer()
    repeated = 100_000 // len(text) + 1
    assert split(f"{text}\n" * repeated) == split(f"{text}\n") * repeated


@pytest.mark.parametrize("letter", ["x", "é"])
def test_of_a_very_long_text_only_words_at_its_ends_count(letter: str, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = f"begin{letter} same " + " ".join(f"w{letter}{number} same" for number in range(2_000)) + f" end{letter}"
    unbounded = Tokenizer()(whole)
    monkeypatch.setattr(tokenizer, "_LONG", 1_000)
    assert Tokenizer()(whole) == unbounded
    monkeypatch.setattr(tokenizer, "_END", 500)
    terms = Tokenizer()(whole)
    for number in (3, 1_998):
        assert set(Tokenizer()(f"begin{letter} w{letter}{number} end{letter}")) <= set(terms)
    assert not set(Tokenizer()(f"w{letter}1000")) <= set(terms)
    assert len(set(terms)) < 300 < len(set(unbounded))
    assert terms.count("same") == unbounded.count("same")
    joined = Tokenizer()("-".join(f"part{number}" for number in range(5_000)))
    assert 10 < len(joined) < 500
