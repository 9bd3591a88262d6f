"""The messages that an agent is given from this backend."""

from __future__ import annotations

from dynamiq_memory.messages import Message
from dynamiq_memory.testing.base import SCOPE, ConformanceBase, Twin, contents, say


def _turn(number: int, text: str = "") -> list[Message]:
    call = {"id": f"call-{number}", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    return [
        say(f"question {number} {text}".strip()),
        say("", "assistant", tool_calls=[call]),
        say("result", "tool", tool_call_id=f"call-{number}"),
        say(f"answer {number}", "assistant"),
    ]


class RetrievingConformance(ConformanceBase):
    """Tests of retrieval strategies, each by the operations of a backend that it needs."""

    def test_all_gives_the_most_recent_whole_turns(self, store: Twin) -> None:
        memory = store.over(filters=SCOPE)
        for number in range(6):
            memory.add_many(_turn(number))
        picked = memory.get_agent_conversation(limit=10)
        assert contents(picked) == ["question 4", "", "result", "answer 4", "question 5", "", "result", "answer 5"]
        assert len(memory.get_agent_conversation(limit=100)) == 24
        assert contents(memory.get_agent_conversation(limit=4))[0] == "question 5"

    def test_relevant_gives_the_best_with_their_turns_in_order_of_time(self, store: Twin) -> None:
        memory = store.over(filters=SCOPE)
        for number in range(30):
            memory.add_many(_turn(number, {7: "zebra", 3: "zebra zebra", 20: "zebra crossing street"}.get(number, "")))
        picked = memory.get_agent_conversation("zebra", limit=8, strategy="relevant")
        assert [content for content in contents(picked) if "question" in content] == [
            "question 3 zebra zebra",
            "question 7 zebra",
        ]
        assert len(picked) == 8
        assert len(memory.get_agent_conversation("zebra", limit=50, strategy="relevant")) == 12

    def test_both_gives_recent_and_relevant_turns(self, store: Twin) -> None:
        memory = store.over(filters=SCOPE)
        memory.add_many(_turn(0, "about the zebra"))
        memory.add_many(
            [message for number in range(1, 301) for message in (say(f"u {number}"), say("ok", "assistant"))]
        )
        picked = contents(memory.get_agent_conversation("zebra", limit=10, strategy="both"))
        assert picked[:4] == ["question 0 about the zebra", "", "result", "answer 0"]
        assert picked[4:] == ["u 298", "ok", "u 299", "ok", "u 300", "ok"]
        reasons = [pick.reason for pick in memory.explain_agent_conversation("zebra", limit=10, strategy="both")]
        assert reasons == ["match", "context", "context", "context"] + ["recent"] * 6

    def test_scope_holds_for_every_strategy(self, store: Twin) -> None:
        memory = store.over()
        for user in ("u1", "u2"):
            for session in ("s1", "s2"):
                memory.add_many([say(f"{user} {session} secret zebra", user=user, session=session) for _ in range(3)])
        for strategy in ("all", "relevant", "both"):
            for scope in ({"user_id": "u1"}, {"user_id": "u1", "session_id": "s2"}, {"user_id": "nobody"}):
                picked = memory.get_agent_conversation("zebra", limit=100, filters=scope, strategy=strategy)
                assert len(picked) == {1: 6, 2: 3}[len(scope)] * (scope["user_id"] != "nobody")
                assert all(message.metadata.items() >= scope.items() for message in picked)

    def test_filters_hold_for_the_neighbours_of_a_match(self, store: Twin) -> None:
        memory = store.over()
        memory.add_many(
            [say("zebra", open=True), say("hidden", "assistant", open=False), say("shown", "assistant", open=True)]
        )
        for strategy in ("all", "relevant", "both"):
            picked = memory.get_agent_conversation("zebra", filters={"open": True}, strategy=strategy)
            assert contents(picked) == ["zebra", "shown"]
