"""The messages that an agent is given from this backend."""

from __future__ import annotations

from dynamiq_memory.testing.base import SCOPE, ConformanceBase, Twin, contents, say


class RetrievingConformance(ConformanceBase):
    """Tests of retrieval strategies, each by the operations of a backend that it needs."""

    def test_superseded_turns_are_kept_and_not_given(self, store: Twin) -> None:
        memory = store.over(filters=SCOPE)
        kept, old, new = ([say(f"zebra {name}"), say(name, "assistant")] for name in ("kept", "old", "new"))
        memory.add_many([*kept, *old])
        memory.supersede(old[0].id)
        memory.add_many(new)
        assert contents(memory.get_all()) == ["zebra kept", "kept", "zebra old", "old", "zebra new", "new"]
        assert contents(m for m in memory.get_all() if m.superseded_at is not None) == ["zebra old", "old"]
        assert "zebra old" in contents(memory.search("zebra"))
        for strategy in ("all", "relevant", "both"):
            picked = memory.get_agent_conversation("zebra", strategy=strategy)
            assert contents(picked) == ["zebra kept", "kept", "zebra new", "new"]
        memory.restore(old[1].id)
        assert contents(memory.get_agent_conversation()) == contents(memory.get_all())

    def test_both_gives_recent_and_relevant_turns(self, store: Twin) -> None:
        memory = store.over(filters=SCOPE)
        call, result = [{"id": "c", "type": "function"}], say("result", "tool", tool_call_id="c")
        memory.add_many([say("about the zebra"), say("", "assistant", tool_calls=call), result, say("a", "assistant")])
        memory.add_many([each for n in range(1, 301) for each in (say(f"u {n}"), say("ok", "assistant"))])
        picked = contents(memory.get_agent_conversation("zebra", limit=10, strategy="both"))
        assert picked[:4] == ["about the zebra", "", "result", "a"]
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
