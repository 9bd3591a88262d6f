"""From text to terms."""

from __future__ import annotations

import threading
import tracemalloc
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dynamiq_memory import ConfigurationError, Message
from dynamiq_memory.ranking import Tokenizer
from dynamiq_memory.ranking.languages import language_of
from dynamiq_memory.ranking.parts import parts_of
from dynamiq_memory.ranking.tokenizer import earlier_signatures_of, signature_of

english = Tokenizer()
plain = Tokenizer(None, ())


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("", []),
        (" \n\t ... !? --- 🙂", []),
        ("Running RUNS run", ["run", "run", "run"]),
        (
            "invoice-number: INV_2024.05",
            ["invoic", "number", "invoicenumb", "inv", "2024", "05", "inv202405", "202405"],
        ),
        ("to be, or not to be?", []),
        ("We're don't can't", []),
        ("We\u2019re don\u2019t", []),
        ("ﬁnance \uff26\uff55ll\uff57idth ①", ["financ", "fullwidth", "1"]),
        ("Straße STRASSE", ["strass", "strass"]),
        ("İstanbul, istanbul!  Go?", ["istanbul", "istanbul", "go"]),
        ("Ελληνικός ΕΛΛΗΝΙΚΌΣ", ["ελληνικ", "ελληνικ"]),
        ("привет ПРИВЕТ", ["привет", "привет"]),
    ],
)
def test_words(text, terms):
    assert english(text) == terms


@pytest.mark.parametrize(
    ("text", "query"),
    [
        ("我喜欢吃北京烤鸭。", "北京"),
        ("我喜欢吃北京烤鸭。", "鸭"),
        ("我的名字是王小明,我住在上海", "王小明住在哪里?"),
        ("東京タワーの高さは333メートルです。", "タワー"),
        ("東京タワーの高さは333メートルです。", "ﾒｰﾄﾙ"),
        ("昨日、寿司を食べました", "寿司"),
        ("人々が集まる", "人々"),
        ("ฉันชอบกินข้าวผัด", "ข้าวผัด"),
        ("저는 서울에 살고 있습니다", "서울에서"),
        ("ខ្ញុំស្រលាញ់ភាសាខ្មែរ", "ភាសា"),
        ("मुझे हिन्दी में बात करना पसंद है", "हिन्दी"),
        ("Ich wohne in München", "MÜNCHEN"),
        ("Ich wohne in München", "Munchen"),
        ("Zażółć gęślą jaźń", "zażółć"),
        ("cafe\u0301", "café"),
        ("Ångström", "A\u030angstro\u0308m"),
        ("مرحبا بالعالم", "بالعالم"),
        ("שלום עולם", "שלום"),
    ],
)
@pytest.mark.parametrize("tokenizer", [english, plain, Tokenizer("german")], ids=["english", "plain", "german"])
def test_a_word_of_any_script_is_found_again(tokenizer, text, query):
    assert set(tokenizer(query)) & set(tokenizer(text))


@pytest.mark.parametrize(
    ("text", "query"),
    [
        ("我喜欢北京", "上海"),
        ("東京タワー", "大阪"),
        ("서울에 살아요", "부산"),
        ("हिन्दी", "मराठी"),
        ("กรุงเทพ", "เชียงใหม่"),
    ],
)
def test_another_word_of_the_script_is_not(text, query):
    assert not set(english(query)) & set(english(text))


def test_unspaced_scripts_give_pairs_and_single_han_characters():
    assert english("北京烤") == ["北京", "京烤", "北", "京", "烤"]
    assert english("タワー") == ["タワ", "ワー"]
    assert english("鸭") == ["鸭"]
    assert english("GPT模型v2") == ["gpt", "模型", "模", "型", "v", "2", "v2"]


@pytest.mark.parametrize(
    ("accented", "bare"),
    [
        ("café", "cafe"),
        ("Zürich", "Zurich"),
        ("jalapeños", "jalapenos"),
        ("naïve", "naive"),
        ("résumé", "resume"),
        ("Brontë", "Bronte"),
        ("fiancée", "fiancee"),
        ("touché", "touche"),
    ],
)
def test_diacritics_make_no_difference(accented, bare):
    assert english(accented) == english(bare)


def test_diacritics_of_other_scripts_are_letters():
    """Removing them would make other words: Devanagari signs, Cyrillic й as it is composed."""
    assert plain("हिन्दी") == ["हिन्दी"]
    assert plain("ガ") != plain("カ")


def test_stop_words_can_be_replaced_and_switched_off():
    assert "the" in Tokenizer(stop_words=())("the end")
    assert Tokenizer(stop_words=["end"])("the End") == ["the"]
    assert Tokenizer(stop_words={"CAFÉ", "don\u2019t"})("café don't do") == ["do"]
    assert Tokenizer("german")("the und") == ["the", "und"]
    assert english.keeping_stop_words("the running") == ["the", "run"]
    assert english("the running") == ["run"]


def test_languages():
    assert set(Tokenizer("german")("Häuser")) > set(Tokenizer("german")("Haus"))
    assert Tokenizer("russian")("книги") == Tokenizer("russian")("книга")
    assert Tokenizer("spanish")("corriendo") == Tokenizer("spanish")("correr")
    assert Tokenizer(None)("running") == ["running"]


@pytest.mark.parametrize(
    ("word", "other"),
    [
        ("книги", "книга"),
        ("السيارة", "سيارة"),
        ("किताबें", "किताब"),
        ("φίλοι", "φίλους"),
        ("மரத்தில்", "மரம்"),
        ("ուսանողներ", "ուսանողների"),
    ],
    ids=["russian", "arabic", "hindi", "greek", "tamil", "armenian"],
)
def test_other_scripts_have_their_own_stemmers(word, other):
    assert english(word) == english(other) == Tokenizer("german")(word)
    assert plain(word) != plain(other)


def test_a_language_stems_its_own_script():
    assert Tokenizer("nepali")("किताबहरू") != english("किताबहरू")
    assert Tokenizer("serbian")("књигама") != english("књигама")


@pytest.mark.parametrize(
    ("text", "word", "term"),
    [
        ("¿Cuándo llegan los niños de mi hermana?", "niños", "nin"),
        ("Où sont mes chevaux et les leurs ?", "chevaux", "cheval"),
        ("Quando arrivano gli amici di mia sorella?", "sorella", "sorell"),
        ("Quando é que chegam as irmãs do meu vizinho?", "vizinho", "vizinh"),
        ("Wann ist der Geburtstag von Ann?", "Geburtstag", "burts"),
        ("Wanneer is het verjaardagsfeest van mijn zus?", "verjaardagsfeest", "feest"),
        ("När är det födelsedag och vad vill du ha?", "födelsedag", "lseda"),
    ],
    ids=["spanish", "french", "italian", "portuguese", "german", "dutch", "swedish"],
)
def test_a_message_in_another_language_has_terms_of_that_language_besides(text, word, term):
    assert {term, *english(word)} <= set(english(text))
    assert term not in english(f"Yesterday evening I saw {word} there")


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("Rooms 101,202,303 are free.", "101 202 303"),
        ("ids: 482 915 377", "482 915 377"),
        ("Bus 24 100 seats", "24 100"),
        ("port 8080,443,500", "8080 443 500"),
        ("call 030 123 456", "030 123 456"),
        ("10.100.200.300", "10 100 200 300"),
    ],
)
def test_numbers_that_look_like_one_are_found_alone(text, numbers):
    assert set(numbers.split()) <= set(english(text))


@pytest.mark.parametrize(
    "text", ["1" * 200_000, "\u0661" * 100_000, "1 " * 50_000, "1.2,3'4 " * 10_000, "(1)" * 30_000]
)
def test_long_runs_of_digits_take_no_quadratic_time(text):
    # In quadratic time, this would take an hour.
    assert english(text)


@pytest.mark.parametrize(
    ("text", "query"),
    [
        ("Ich habe eine neue Autoversicherung.", "Was kostet meine Versicherung?"),
        ("Die Kinder sind mit den Fahrrädern in die Schule gefahren.", "Kind"),
        ("Die Kinder sind mit den Fahrrädern in die Schule gefahren.", "Fahrrad"),
        ("Unser Haus hat einen Garten und wir sind oft dort.", "die Häuser sind auf dem Berg"),
        ("Ik heb een nieuwe autoverzekering en ik ben blij.", "Wat kost mijn verzekering?"),
        ("J'ai un œuf pour ma sœur.", "soeur oeuf"),
        ("اشتريت والسيارة جديدة", "السيارة"),
    ],
)
def test_a_word_of_another_language_is_found_by_few_words(text, query):
    assert set(english(text)) & set(english(query))


@pytest.mark.parametrize(
    "text",
    [
        "I met Juan de la Cruz, who runs the new shop in the old station by the river.",
        "We saw Das Boot and Le Samouraï at home.",
        "Die hard!",
    ],
)
def test_names_do_not_make_a_message_foreign(text):
    assert language_of(text.split()) is None


@pytest.mark.parametrize("language", ["klingon", "English", "", "en"])
def test_an_unknown_language_is_named_with_those_that_are_known(language):
    with pytest.raises(ConfigurationError, match=rf"{language!r}.*english.*None"):
        Tokenizer(language)


def test_stop_words_given_as_one_string_are_refused():
    with pytest.raises(ConfigurationError, match="stop_words"):
        Tokenizer(stop_words="the")


def test_signatures_distinguish_tokenizers():
    makers = [
        Tokenizer,
        lambda: Tokenizer(None),
        lambda: Tokenizer("german"),
        lambda: Tokenizer(stop_words=()),
        lambda: Tokenizer(stop_words=("a", "b")),
        lambda: Tokenizer(stop_words=("a b",)),
        lambda: Tokenizer("german", ("a",)),
    ]
    signatures = [make().signature for make in makers]
    assert signatures == [make().signature for make in makers]
    assert len(set(signatures[:5] + signatures[6:])) == 6
    assert Tokenizer(stop_words=["b", "A"]).signature == Tokenizer(stop_words=("a", "b", "a")).signature


def test_words_are_terms_without_parts():
    assert english.words("The getUserName of q1, e-mails: 1,000; don't") == {
        "getusernam",
        "q1",
        "e",
        "mail",
        "1",
        "000",
    }
    assert english.words("Wann ist der Geburtstag?") == {"wann", "ist", "der", "geburtstag"}
    assert english.words("北京烤") == {"北京", "京烤", "北", "京", "烤"}


def test_only_the_default_tokenizer_has_earlier_versions():
    assert earlier_signatures_of(english) == {"words-1/english/7a2a7537"}
    for other in (plain, Tokenizer("german"), Tokenizer(stop_words=()), str.split):
        assert not earlier_signatures_of(other)


@pytest.mark.parametrize(
    ("word", "parts"),
    [
        ("getUserName", ["get", "User", "Name", "getUserName"]),
        ("HTTPServer", ["HTTP", "Server", "HTTPServer"]),
        ("foo_bar.baz", ["foo", "bar", "baz", "foobarbaz"]),
        ("Anna's", ["Anna's"]),
        ("o'clock", ["o", "clock", "oclock"]),
        ("v1.2.3", ["v", "1", "2", "3", "v123", "1.2.3"]),
        ("1,000,000", ["1000000"]),
        ("3.000,50", ["3000", "50", "300050"]),
        ("1.5", ["1", "5", "1.5"]),
        ("10-12", ["10", "12", "1012"]),
        ("2023 10", ["2023", "10"]),
        ("+49 30 1234-567"[1:], ["49", "30", "1234", "567", "49301234567", "1234567"]),
        ("a1b2c3d4e5", ["a1b2c3d4e5", "a1b2c3d"]),
        ("a1b2c3", ["a1b2c3"]),
        ("x" * 40 + "_" + "y" * 40, ["x" * 40, "y" * 40]),
    ],
)
def test_parts(word, parts):
    assert parts_of(word) == parts


@pytest.mark.parametrize("repeated", ["1 ", "1,000,", "000.", "a-", "aA", "a1", "1(", "'s", "ß-", "٣ "])
def test_terms_take_no_more_than_a_multiple_of_the_text(repeated):
    text = f"{repeated * 20_000}x"
    assert 0 < sum(map(len, english(text))) < 6 * len(text)


def test_a_function_is_named_by_where_it_is_defined():
    assert signature_of(english) == english.signature

    def mine(text):
        return text.split()

    assert signature_of(mine).endswith("mine")
    assert signature_of(mine) != signature_of(lambda text: text.split())


def test_a_method_of_a_built_in_type_can_tokenise(new_store):
    """`str.split` is what one tries first."""
    store = new_store(tokenizer=str.split)
    store.add(Message(role="user", content="one two"))
    assert len(store.search("two")) == 1


TEXTS = st.text(st.characters(codec="utf-8"), max_size=80)


@given(TEXTS)
@example("\u0130\u0307'")
@example("\u1e9e\ufb03")
def test_terms_are_stable_and_clean(text):
    for tokenizer in (english, plain):
        terms = tokenizer(text)
        assert terms == type(tokenizer)(tokenizer.language, tokenizer.stop_words)(text)
        assert all(terms)
        assert not any(set(term) & set(" \t\n\x00,!?_\u2019") for term in terms)


@given(st.text(st.characters(min_codepoint=0, max_codepoint=127), max_size=80))
@example("it's rock'n'roll o'clock's 'quoted' x'1 1'x")
def test_ascii_text_is_split_as_any_other_text(text):
    """Its shortcut must give what the full rules give."""
    for tokenizer in (english, plain):
        assert tokenizer(f"{text} \u200b") == tokenizer(text)


@given(st.lists(st.sampled_from(["Running", "CAFÉ", "ﬁsh", "Straße", "天気", "don't", "x1"]), max_size=6))
def test_case_makes_no_difference(words):
    text = " ".join(words)
    assert english(text) == english(text.lower()) == english(text.upper())


def test_threads_do_not_disturb_each_other():
    """A stemmer keeps its word in itself: shared between threads it would mix them up."""
    words = [
        f"{stem}{end}" for stem in ("relat", "connect", "generaliz", "oper") for end in ("ing", "ed", "ion", "ations")
    ]
    text = " ".join(f"{word}{chr(97 + n % 26)}{word}" for n, word in enumerate(words * 40))
    expected = Tokenizer()(text)
    shared = Tokenizer()
    barrier = threading.Barrier(4)

    def work(_):
        barrier.wait()
        return [shared(text) for _ in range(5)]

    with ThreadPoolExecutor(4) as pool:
        for results in pool.map(work, range(4)):
            assert results == [expected] * 5


def test_a_large_text_takes_little_more_memory_than_its_terms():
    tokenizer = Tokenizer()
    text = " ".join(f"word{n % 500} ferry{n % 7}" for n in range(40_000))
    tokenizer(text[:20_000])
    tracemalloc.start()
    try:
        terms = tokenizer(text)
        kept, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(terms) == 240_000  # "word1" is also "word" and "1"
    assert peak < 1.3 * kept


def test_a_large_text_has_the_terms_of_its_parts():
    tokenizer = Tokenizer()
    for part in ("où est la gare et les trains de la ville sont ils là ", "is the ferry on time, getUserName? "):
        text = part * 4_000
        counts = Counter(tokenizer(part * 2))
        assert Counter(tokenizer(text)) == {term: count * 2_000 for term, count in counts.items()}
