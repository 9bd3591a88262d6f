"""BM25 and its two indexes."""

from __future__ import annotations

import math
import sys
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rank_bm25 import BM25Okapi

from dynamiq_memory import Memory, MessageRole
from dynamiq_memory.ranking import BM25, InvertedIndex, packed_terms

WORDS = st.sampled_from(["red", "green", "blue", "car", "house", "x", "天気", ""])
DOCUMENTS = st.lists(st.lists(WORDS, max_size=12), min_size=1, max_size=12)
QUERIES = st.lists(st.one_of(WORDS, st.just("unknown")), max_size=5)
# So many terms are looked for in one pass.
LONG_QUERIES = QUERIES.map(lambda query: [*query, *map(str, range(30))])
FORMULAS = st.builds(BM25, k1=st.floats(0, 3), b=st.floats(0, 1))


def index_of(documents):
    index = InvertedIndex()
    for number, terms in enumerate(documents):
        index.add(number, terms)
    return index


def oracle(documents, query, formula):
    """rank_bm25's scores with our idf."""
    okapi = BM25Okapi(documents, k1=formula.k1, b=formula.b)
    frequency = Counter(term for terms in documents for term in set(terms))
    total = len(documents)
    okapi.idf = {term: math.log(1 + (total - n + 0.5) / (n + 0.5)) for term, n in frequency.items()}
    return okapi.get_scores(list(dict.fromkeys(query)))


@given(DOCUMENTS.filter(any), QUERIES, st.builds(BM25, k1=st.floats(0.01, 3), b=st.floats(0, 1)))
def test_scores_are_those_of_rank_bm25(documents, query, formula):
    expected = oracle(documents, query, formula)
    scores = index_of(documents).scores(formula, query)
    matching = {n for n, terms in enumerate(documents) if set(terms) & set(query)}
    assert set(scores) == matching
    for number, score in scores.items():
        assert score > 0
        assert score == pytest.approx(expected[number], rel=1e-9)


@given(DOCUMENTS, QUERIES | LONG_QUERIES, FORMULAS)
def test_terms_carried_by_each_message_give_the_same_scores(documents, query, formula):
    expected = index_of(documents).scores(formula, query)
    lengths = [len(terms) for terms in documents]
    scores = packed_terms.scores(formula, query, lengths, [packed_terms.encode(terms) for terms in documents])
    assert scores == pytest.approx(expected, rel=1e-12)
    assert set(scores) == set(expected)


@pytest.mark.parametrize("count", [1, 254, 255, 256, 1_000])
def test_counts_that_one_byte_does_not_hold(count):
    documents = [["often"] * count + ["once"], ["once", "other"]]
    expected = index_of(documents).scores(BM25(), ["often", "once"])
    packed = [packed_terms.encode(terms) for terms in documents]
    assert packed_terms.scores(BM25(), ["often", "once"], [count + 1, 2], packed) == pytest.approx(expected)
    assert expected[0] > expected[1]


@pytest.mark.parametrize("others", [0, 30])
def test_a_hash_across_two_entries_is_not_a_match(others):
    query = ["wanted", *map(str, range(others))]
    wanted = packed_terms.encode(["wanted"])[:5]
    # Six bytes an entry: the hash begins in the middle of the first, or is found there before its true place.
    split = b"\x00" * 3 + wanted + b"\x00" * 4
    assert packed_terms.scores(BM25(), query, [2, 1], [split, b""]) == {}
    true_place = split + wanted + b"\x02"
    assert set(packed_terms.scores(BM25(), query, [3, 1], [true_place, b""])) == {0}


def test_a_search_by_numpy_finds_the_same_places(monkeypatch):
    entries = [*(packed_terms.encode([str(n)]) for n in range(300)), packed_terms.encode(["7", "8", "9"])]
    joined = b"".join(entries)
    # Also what is there across two entries only, and what differs in the last byte.
    asked = [joined[n : n + 5] for n in range(60)] + [joined[:4] + bytes([joined[4] ^ 1]), b"\0" * 5]
    pytest.importorskip("numpy")
    by_numpy = [list(packed_terms._search(joined)(hashed)) for hashed in asked]
    monkeypatch.setitem(sys.modules, "numpy", None)
    assert by_numpy == [list(packed_terms._search(joined)(hashed)) for hashed in asked]
    assert by_numpy[:12] == [[0], [], [], [], [], [], [6], [], [], [], [], []]
    assert by_numpy[42] == [42, 1800]


@given(st.lists(st.lists(st.sampled_from("abcdefgh"), max_size=6), max_size=12), st.sets(st.sampled_from("abcdxyz")))
def test_many_terms_are_found_by_numpy_as_without(texts, query):
    pytest.importorskip("numpy")
    packed = [packed_terms.encode(terms) for terms in texts]
    hashes = [packed_terms._hash(term) for term in sorted(query)]
    # Hashes that share their first bytes with those of other terms are not these terms.
    hashes += [hashed[:4] + bytes([hashed[4] ^ 1]) for hashed in hashes]
    by_numpy = list(packed_terms._matches_of_many(hashes, packed))
    with pytest.MonkeyPatch.context() as patched:
        patched.setitem(sys.modules, "numpy", None)
        assert by_numpy == list(packed_terms._matches_of_many(hashes, packed))


def test_lone_surrogates_can_be_terms():
    assert set(
        packed_terms.scores(BM25(), ["\ud800"], [1, 1], [packed_terms.encode(["\ud800"]), packed_terms.encode(["x"])])
    ) == {0}


EDITS = st.lists(st.tuples(st.booleans(), st.integers(0, 20), st.lists(WORDS, max_size=8)), max_size=40)


@given(EDITS, QUERIES)
def test_an_index_after_any_edits_is_that_of_a_fresh_build(edits, query):
    index = InvertedIndex()
    held: dict[int, list[str]] = {}
    number = 0
    for adding, which, terms in edits:
        if adding or not held:
            index.add(number, terms)
            held[number] = terms
            number += 1
        else:
            document = sorted(held)[which % len(held)]
            index.remove(document, held.pop(document))
    fresh = InvertedIndex()
    for document, terms in held.items():
        fresh.add(document, terms)
    assert len(index) == len(fresh) == len(held)
    assert index.total_length == fresh.total_length == sum(map(len, held.values()))
    assert index.scores(BM25(), query) == fresh.scores(BM25(), query)


def test_nothing_stored_nothing_scored():
    assert InvertedIndex().scores(BM25(), ["x"]) == {}
    assert index_of([[], []]).scores(BM25(), ["x"]) == {}
    assert packed_terms.scores(BM25(), ["x"], [], []) == {}


def test_the_same_scores_on_both_backends(new_store):
    """InMemory keeps postings, SQLite terms by message; a caller must not see it."""
    texts = ["red car", "a red red house", "green", "", "the car is in the house", "blue green red", "天気 car"]
    store, memory = new_store(), Memory()
    for target in (Memory(backend=store), memory):
        for number, text in enumerate(texts):
            target.add(MessageRole.USER, text, {"user_id": f"u-{number % 2}", "n": number})
    for query in ("red", "car house", "天気", "red red car", "the"):
        for filters in ({}, {"user_id": "u-0"}, {"n": {"gte": 2}}):
            found = [(m.metadata["n"], m.score) for m in Memory(backend=store).search(query, filters)]
            expected = [(m.metadata["n"], m.score) for m in memory.search(query, filters)]
            assert [n for n, _ in found] == [n for n, _ in expected]
            assert [s for _, s in found] == pytest.approx([s for _, s in expected])


@pytest.mark.parametrize("others", [0, 1])
def test_tiny_corpora_are_searchable(store, others):
    memory = Memory(backend=store)
    memory.add(MessageRole.USER, "the giraffe is tall")
    for _ in range(others):
        memory.add(MessageRole.USER, "a giraffe eats")
    found = memory.search("giraffe")
    assert len(found) == 1 + others
    assert all(m.score > 0 for m in found)


@pytest.mark.parametrize("wrong", [{"k1": -1.0}, {"b": -0.1}, {"b": 1.1}, {"k1": math.nan}])
def test_parameters_outside_of_their_range_are_refused(wrong):
    """With k1 = -1 a score divides by zero or turns negative."""
    with pytest.raises(ValueError, match=next(iter(wrong))):
        BM25(**wrong)


def test_a_small_tenants_hit_is_found_in_a_large_store(store):
    memory = Memory(backend=store)
    for number in range(300):
        memory.add(MessageRole.USER, f"billing billing billing {number}", {"user_id": "big"})
    memory.add(MessageRole.USER, "a word on billing and much else that is long", {"user_id": "small"})
    assert [m.metadata["user_id"] for m in memory.search("billing", {"user_id": "small"}, limit=1)] == ["small"]


def test_a_question_of_stop_words_alone_still_finds(store):
    memory = Memory(backend=store)
    memory.add(MessageRole.USER, "to be or not to be", {"user_id": "u"})
    memory.add(MessageRole.USER, "something else entirely", {"user_id": "u"})
    memory.add(MessageRole.USER, "to be continued", {"user_id": "v"})
    for limit in (1, None):
        found = memory.search("to be", {"user_id": "u"}, limit=limit)
        assert [m.content for m in found] == ["to be or not to be"]
        assert found[0].score > 0
    assert memory.search("?!") == []
