"""A ranker of the dynamiq package orders what a memory's search found."""

from __future__ import annotations

from dynamiq.nodes.rankers import TimeWeightedDocumentRanker

from dynamiq_memory import Memory, Message


class Longest(TimeWeightedDocumentRanker):  # type: ignore[misc]  # dynamiq is not installed here
    """One that needs no model."""

    def execute(self, input_data, config=None, **kwargs):
        return {"documents": sorted(input_data.documents, key=lambda each: len(each.content), reverse=True)[:1]}


def test_a_ranker_of_dynamiq():
    memory = Memory(filters={"user_id": "u", "session_id": "s"}, reranker=Longest())
    memory.add_many([Message(role="user", content=text) for text in ("a pear", "pear, pear, pear", "a plum")])
    assert [message.text for message in memory.search("pear")] == ["pear, pear, pear", "a pear"]
