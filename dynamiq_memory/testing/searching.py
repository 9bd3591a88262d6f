"""Search and ranking."""

from __future__ import annotations

from typing import Any

import pytest

from dynamiq_memory.ranking.scores import parts_of
from dynamiq_memory.testing.base import SESSION, USER, ConformanceBase, Twin, contents, say


class SearchingConformance(ConformanceBase):
    """Tests of `search`."""

    def test_the_best_comes_first(self, store: Twin) -> None:
        texts = (
            "The invoice is about billing, and billing only: a billing question.",
            "Nice weather today.",
            "I have one question about the garden, the house, the street and the town that we live in.",
        )
        store.add_many(list(map(say, texts)))
        found = store.search("billing question")
        assert found[0].content.startswith("The invoice")
        assert "Nice weather today." not in contents(found)
        assert contents(store.search("billing question", limit=1)) == contents(found)[:1]

    def test_every_result_has_a_score_and_they_descend(self, store: Twin) -> None:
        store.add_many([say(f"apple {'pear ' * number}plum") for number in range(8)])
        scores = [message.score for message in store.search("apple pear")]
        assert len(scores) == 8
        assert all(isinstance(score, float) and score > 0 for score in scores)
        assert scores == sorted(scores, reverse=True)
        assert all(message.score is None for message in store.get_all())

    def test_the_parts_of_a_score_add_up_to_it(self, store: Twin) -> None:
        store.add_many([say(text) for text in ["An apple a day", "Pears and an apple", "Nothing", "An apple"]])
        for found in (store.search("apple pears"), store.search("apple")):
            for message in found:
                parts = parts_of(message.score)
                assert abs(sum(parts.values()) - (message.score or 0.0)) < 1e-6, parts
                assert parts.keys() <= {"words", "meaning", "neighbours", "session"}
        assert {message.content for message in found if parts_of(message.score).get("words")} == {
            "An apple a day",
            "Pears and an apple",
            "An apple",
        }

    def test_equal_scores_come_latest_first(self, store: Twin) -> None:
        # In sessions of their own, since matches around a message raise its score.
        store.add_many([say("same words", session=f"s{n}", id=f"{n}", timestamp=float(n // 2)) for n in range(6)])
        assert [message.id for message in store.search("words")] == ["5", "4", "3", "2", "1", "0"]
        assert [message.id for message in store.search("words", limit=3)] == ["5", "4", "3"]

    def test_only_what_matches_at_all(self, store: Twin) -> None:
        store.add(say("apples and pears"))
        assert contents(store.search("pears")) == ["apples and pears"]  # a word of all messages still counts
        store.add_many([say("plums"), say("")])
        assert contents(store.search("pears")) == ["apples and pears"]
        assert store.search("cherries") == []

    def test_two_messages_can_be_searched(self, store: Twin) -> None:
        store.add_many(
            [say("My name is Alex and I work at TechCorp."), say("Nice to meet you, Alex!", role="assistant")]
        )
        assert contents(store.search("Where does Alex work?"))[0].startswith("My name")
        assert len(store.search("Alex")) == 2

    def test_words_of_many_kinds_are_found(self, store: Twin) -> None:
        texts = {
            "LÜNEBURG?": "I live in the village of Lüneburg",
            "cafe": "We met at the café",
            "runs": "She is running",
            "東京": "私は東京に住んでいます",
            "猫": "我的猫叫小白",
            "алена": "Меня зовут Алёна",
            "서울": "안녕하세요 서울에서 왔어요",
            "17": "the code is x-17-B",
        }
        for query, text in texts.items():
            store.add_many([say("something else", query=query), say(text, query=query)])
        for query, text in texts.items():
            assert contents(store.search(query, {"query": query})) == [text]

    def test_stop_words_alone_are_found_too(self, store: Twin) -> None:
        store.add_many([say("Who are you?"), say("A dog barks.")])
        assert contents(store.search("who are you", limit=1)) == ["Who are you?"]

    def test_any_text_is_a_query(self, store: Twin) -> None:
        store.add(say("hello there"))
        odd = ('"', "'", "*", "a AND", "NEAR(", "(", "col:x", "x OR 1=1", "%", "\\", "?!", "a" * 5000, "\0", "\ud800")
        for query in odd:
            assert contents(store.search(query)) in ([], ["hello there"]), query

    def test_scope_applies_before_ranking_and_limit(self, store: Twin) -> None:
        store.add(say("the blue car", user="small"))
        store.add_many([say("the blue blue blue car car", user="big") for _ in range(300)])
        for filters in ({"user_id": "small"}, {"user_id": "small", "session_id": SESSION}):
            assert [m.user_id for m in store.search("blue car", filters, limit=3)] == ["small"]
        assert {m.user_id for m in store.search("blue car", {"session_id": SESSION}, limit=400)} == {"small", "big"}

    def test_other_filters_apply_before_ranking_and_limit(self, store: Twin) -> None:
        store.add(say("the blue car", topic="small"))
        store.add_many([say("blue blue car car", topic="big") for _ in range(200)])
        assert contents(store.search("blue car", {"topic": "small"}, limit=3)) == ["the blue car"]
        assert len(store.search("blue car", {"user_id": USER, "topic": "big"}, limit=50)) == 50

    def test_other_users_change_nobodys_results(self, store: Twin) -> None:
        own = ["red apple", "green apple", "red plum", "a red red apple tart"]
        store.add_many([say(text, user="own") for text in own])
        before = [(m.content, m.score) for m in store.search("red apple", {"user_id": "own"})]
        store.add_many([say("apple apple pie", user=f"user {n}") for n in range(50)])
        after = [(m.content, m.score) for m in store.search("red apple", {"user_id": "own"})]
        assert [content for content, _ in after] == [content for content, _ in before]
        assert [score for _, score in after] == pytest.approx([score for _, score in before])

    def test_deleted_and_replaced_messages_are_found_no_more(self, store: Twin) -> None:
        store.add_many([say("apple one", session="a"), say("apple two", session="b")])
        store.delete(session_id="a")
        assert contents(store.search("apple")) == ["apple two"]
        store.replace({"user_id": USER, "session_id": "b"}, [say("pear three", session="b")])
        assert store.search("apple") == []
        assert contents(store.search("pear")) == ["pear three"]

    def test_content_parts_are_searched_by_their_text(self, store: Twin) -> None:
        parts: list[dict[str, Any]] = [
            {"type": "text", "text": "a zebra"},
            {"type": "image_url", "image_url": {"url": "data:giraffe"}},
        ]
        store.add(say(content=parts))
        assert contents(store.search("zebra")) == [parts]
        assert store.search("giraffe") == []
