"""The viewer in a real browser."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

pytest.importorskip("selenium")

from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from dynamiq_memory import Memory, Message, MessageRole
from dynamiq_memory.backends import InMemory
from dynamiq_memory.server.keys import KeyStore
from dynamiq_memory.server.partition import Partition
from tests.service.browser import chromium
from tests.service.serving import Service, serving

EVIL = "<script>window.hacked = 1</script><img src=x onerror='window.hacked = 2'>"
# Where the picture of the README goes; only when asked for, so that tests change no file.
SCREENSHOT = os.environ.get("DYNAMIQ_MEMORY_SCREENSHOT")


def say(role: str, text: str, session: str, user: str = "alex", **fields: Any) -> Message:
    return Message(role=MessageRole(role), content=text, metadata={"user_id": user, "session_id": session}, **fields)


CALL = {"id": "c1", "type": "function", "function": {"name": "order_status", "arguments": '{"order": 1042}'}}
TALK = [
    say("user", "Hi, my dog Rex chewed the cable of the lamp I bought.", "monday"),
    say("assistant", "Oh no! Which lamp is it? I can look up the order.", "monday"),
    say("user", "Order 1042, the green desk lamp.", "monday"),
    say("assistant", "", "monday", tool_calls=[CALL]),
    say("tool", "Order 1042: desk lamp, green, delivered on 3 November.", "monday", tool_call_id="c1", name="order_status"),
    say("assistant", "The cable is a spare part: 4.90, delivered in two days. Shall I order it?", "monday"),
    say("user", "Yes please. And do you sell bitter spray against chewing?", "monday"),
    say("assistant", "Ordered. Yes: “No Chew”, 8.50. It is harmless to dogs.", "monday"),
    say("user", "What are your opening hours on Saturday?", "monday"),
    say("assistant", "From 9 to 14.", "monday"),
    say("user", f"Markup: {EVIL}", "evil <b>session</b>", user="eve"),
    say("user", "Is the lamp dimmable?", "friday", timestamp=1_795_000_000.0),
    say("assistant", "Yes, in three", "friday", timestamp=1_795_000_009.0),
    say("user", "of another user", "private", user="bob"),
]  # fmt: skip


TALK[-2].metadata["interrupted"] = True


# JavaScript cannot make a text of it.
NO_TEXT: Any = {"toString": 1}
POISONED = [
    say("assistant", "", "poison", "mallory", tool_calls=[{"id": "c", "function": {"name": NO_TEXT}}]),
    say("assistant", "", "poison", "mallory", tool_calls=[{"id": NO_TEXT}, {"function": None}, {"function": []}]),
    Message(role="user", content=[{"type": NO_TEXT}, {"text": 1}], metadata={"user_id": "mallory", "session_id": "poison"}),
    say("user", "still here", "poison", "mallory"),
]  # fmt: skip


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with chromium(tmp_path_factory.mktemp("profile")) as started:
        yield started


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Service, str]]:
    with KeyStore(tmp_path_factory.mktemp("keys") / "keys.db") as keys, InMemory() as store:
        _, text = keys.create(["support"])
        Partition(store, "support").add_many([*TALK, *POISONED])
        long = [say("user", f"number {n}", "long", user="many", timestamp=1000.0 + n) for n in range(120)]
        Partition(store, "support").add_many(long)
        edited = Memory(Partition(store, "support"), filters={"user_id": "zoe", "session_id": "edited"})
        edited.supersede(edited.add("user", "Is the blue lamp there?").id)
        edited.add("user", "Is the red lamp there?")
        with serving(store, keys) as service:
            yield service, text


def wait(check: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + 120
    while not (found := check()):
        assert time.monotonic() < deadline, "the page did not get there"
        time.sleep(0.02)
    return found


def fill(browser: Any, **fields: str) -> None:
    for name, text in fields.items():
        field = browser.find_element(By.ID, name)
        field.clear()
        field.send_keys(text)


@pytest.fixture
def page(browser: Any, served: tuple[Service, str]) -> Iterator[Any]:
    """The viewer, opened for alex by typing alone."""
    service, key = served
    browser.set_window_size(1280, 900)
    browser.get(service.url)
    browser.execute_script("sessionStorage.clear()")
    browser.get(service.url)
    browser.get_log("browser")  # what a test before said
    fill(browser, key=key, memory="support", user="alex")
    browser.find_element(By.ID, "user").send_keys(Keys.ENTER)
    wait(lambda: "2 sessions" in browser.find_element(By.ID, "status").text)
    yield browser
    # Nothing was blocked by the policy or failed: every file and style is the service's own.
    entries = [entry for entry in browser.get_log("browser") if entry["level"] in ("WARNING", "SEVERE")]
    problems = [entry for entry in entries if "favicon" not in entry["message"]]
    assert problems == []
    assert browser.execute_script("return window.hacked") is None


def open_session(page: Any, name: str) -> None:
    buttons = page.find_elements(By.CSS_SELECTOR, "#sessions button")
    next(button for button in buttons if name in button.text).click()
    wait(lambda: name in page.find_element(By.ID, "status").text)


def says(page: Any, said: str) -> bool:
    return said in page.find_element(By.ID, "status").text


def has_messages(page: Any, count: int) -> bool:
    return len(texts(page, "#messages")) == count


def texts(page: Any, where: str) -> list[str]:
    # In one command: a command for each message would take most of a test's time.
    script = "return [...document.querySelectorAll(arguments[0])].map(element => element.innerText)"
    return list(page.execute_script(script, f"{where} .text"))


def test_a_conversation_is_shown_as_a_chat(page: Any) -> None:
    open_session(page, "monday")
    assert texts(page, "#messages") == [message.text for message in TALK[:10]]
    roles = [element.text for element in page.find_elements(By.CSS_SELECTOR, "#messages .role")]
    assert roles == [message.role.value for message in TALK[:10]]
    details = page.find_element(By.CSS_SELECTOR, "#messages details")
    assert "order_status" in details.text
    details.find_element(By.TAG_NAME, "summary").send_keys(Keys.ENTER)
    assert "1042" in details.text
    assert "of another user" not in page.find_element(By.TAG_NAME, "body").text


def test_an_interrupted_answer_is_marked(page: Any) -> None:
    open_session(page, "friday")
    marked = page.find_elements(By.XPATH, "//*[@id='messages']/li[.//*[@class='badge'][text()='interrupted']]")
    assert [element.find_element(By.CLASS_NAME, "text").text for element in marked] == ["Yes, in three"]


def test_markup_in_messages_and_names_is_text(page: Any) -> None:
    fill(page, user="eve")
    page.find_element(By.ID, "user").send_keys(Keys.ENTER)
    wait(lambda: "1 session" in page.find_element(By.ID, "status").text)
    open_session(page, "evil <b>session</b>")
    assert texts(page, "#messages") == [f"Markup: {EVIL}"]
    assert page.find_elements(By.CSS_SELECTOR, "#messages script, #messages img, #sessions b") == []


def test_superseded_messages_are_marked(page: Any) -> None:
    fill(page, user="zoe")
    page.find_element(By.ID, "user").send_keys(Keys.ENTER)
    wait(lambda: "1 session" in page.find_element(By.ID, "status").text)
    open_session(page, "edited")
    assert texts(page, "#messages") == ["Is the blue lamp there?", "Is the red lamp there?"]
    assert texts(page, "#messages .superseded") == ["Is the blue lamp there?"]
    assert page.find_element(By.CSS_SELECTOR, "#messages .superseded .badge").text == "superseded"


def test_search_shows_scores(page: Any) -> None:
    page.find_element(By.ID, "tab-search").click()
    fill(page, query="dog lamp")
    page.find_element(By.ID, "query").send_keys(Keys.ENTER)
    wait(lambda: "found" in page.find_element(By.ID, "status").text)
    found = texts(page, "#results")
    assert found[0] == TALK[0].text
    scores = [float(e.text.removeprefix("score ")) for e in page.find_elements(By.CSS_SELECTOR, "#results .score")]
    assert len(scores) == len(found) >= 3
    assert scores == sorted(scores, reverse=True)


def test_what_an_agent_would_be_given_with_the_reasons(page: Any) -> None:
    open_session(page, "monday")
    page.find_element(By.ID, "tab-agent").click()
    fill(page, question="Which lamp did my dog chew?", limit="4")
    page.find_element(By.ID, "question").send_keys(Keys.ENTER)
    wait(lambda: page.find_elements(By.CSS_SELECTOR, "#strategies [data-strategy=both] .message"))

    def given(strategy: str) -> list[tuple[str, str]]:
        place = f"#strategies [data-strategy={strategy}]"
        reasons = [element.text for element in page.find_elements(By.CSS_SELECTOR, f"{place} .reason")]
        return list(zip(texts(page, place), reasons, strict=True))

    assert given("all") == [(message.text, "recent") for message in TALK[6:10]]
    assert given("relevant")[0] == (TALK[0].text, "match")
    assert given("both")[0] == (TALK[0].text, "match")
    assert given("both")[-1] == (TALK[9].text, "recent")
    facts = page.find_element(By.CSS_SELECTOR, "#strategies [data-strategy=all] small").text
    assert "unchanged since the question before" in facts
    if SCREENSHOT:
        page.set_window_size(1280, 1000)
        Path(SCREENSHOT).parent.mkdir(parents=True, exist_ok=True)
        page.save_screenshot(SCREENSHOT)


def test_long_conversations_are_read_in_pages(page: Any) -> None:
    fill(page, user="many")
    page.find_element(By.ID, "user").send_keys(Keys.ENTER)
    wait(lambda: "1 session" in page.find_element(By.ID, "status").text)
    for shown in (50, 100, 120):
        wait(partial(has_messages, page, shown))
        assert texts(page, "#messages")[-1] == "number 119"
        older = page.find_element(By.ID, "older")
        if older.is_displayed():
            older.click()
    assert texts(page, "#messages") == [f"number {n}" for n in range(120)]
    assert not page.find_element(By.ID, "older").is_displayed()


def test_every_message_is_shown_whatever_it_holds(page: Any) -> None:
    fill(page, user="mallory")
    page.find_element(By.ID, "user").send_keys(Keys.ENTER)
    wait(partial(has_messages, page, len(POISONED)))
    assert texts(page, "#messages")[-1] == "still here"
    assert 'calls {"toString":1}' in page.find_element(By.ID, "messages").text


def test_it_works_by_keyboard(page: Any) -> None:
    def active() -> Any:
        return page.switch_to.active_element

    page.find_element(By.ID, "tab-chat").send_keys(Keys.ARROW_RIGHT)
    assert active().get_attribute("id") == "tab-search"
    assert page.find_element(By.ID, "search").is_displayed()
    active().send_keys(Keys.TAB, Keys.TAB)
    page.find_element(By.ID, "tab-search").send_keys(Keys.ARROW_LEFT, Keys.ARROW_LEFT)
    assert active().get_attribute("id") == "tab-agent"
    page.find_element(By.CSS_SELECTOR, "#sessions button").send_keys(Keys.ENTER)
    wait(lambda: "Session" in page.find_element(By.ID, "status").text)
    page.find_element(By.TAG_NAME, "body").send_keys(Keys.HOME)
    reached = set()
    page.execute_script("document.activeElement.blur(); window.scrollTo(0, 0)")
    for _ in range(25):
        active().send_keys(Keys.TAB)
        reached.add(active().get_attribute("id"))
    assert {"key", "memory", "user", "forget", "tab-chat"} <= reached
    unnamed = page.execute_script(
        "return [...document.querySelectorAll('input')].filter((field) => field.labels.length === 0).map((f) => f.id)"
    )
    assert unnamed == []


def test_a_phones_width_needs_no_sideways_scrolling(page: Any) -> None:
    open_session(page, "monday")
    # A window cannot be so narrow; the page in it can.
    page.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": 360, "height": 740, "deviceScaleFactor": 1, "mobile": True}
    )
    try:
        for tab in ("tab-chat", "tab-search", "tab-agent"):
            page.find_element(By.ID, tab).click()
            assert page.execute_script("return document.documentElement.scrollWidth") <= 360
    finally:
        page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_the_key_stays_in_the_tab_and_can_be_forgotten(page: Any, served: tuple[Service, str]) -> None:
    service, key = served
    assert page.execute_script("return sessionStorage.getItem('key')") == key
    assert page.execute_script("return localStorage.length") == 0
    assert page.get_cookies() == []
    assert key not in page.current_url
    page.refresh()
    wait(lambda: "2 sessions" in page.find_element(By.ID, "status").text)
    page.find_element(By.ID, "forget").click()
    assert page.execute_script("return sessionStorage.length") == 0
    assert page.find_elements(By.CSS_SELECTOR, "#sessions button, #messages li") == []
    assert service.url in page.current_url


def test_what_goes_wrong_is_said(browser: Any, served: tuple[Service, str]) -> None:
    service, key = served
    browser.get(service.url)
    browser.execute_script("sessionStorage.clear()")
    browser.get(service.url)
    for wrong, said in (({"key": "wrong", "memory": "support"}, "401"), ({"key": key, "memory": "other"}, "403")):
        fill(browser, **wrong)
        browser.find_element(By.ID, "memory").send_keys(Keys.ENTER)
        wait(partial(says, browser, said))
        assert browser.find_elements(By.CSS_SELECTOR, "#sessions button") == []
    browser.get_log("browser")


def test_the_api_is_described_on_a_page(page: Any, served: tuple[Service, str]) -> None:
    service, _ = served
    page.get(f"{service.url}/docs")
    wait(lambda: page.find_elements(By.TAG_NAME, "details"))
    described = httpx.get(f"{service.url}/openapi.json", timeout=60).json()["paths"]
    shown = [element.text for element in page.find_elements(By.TAG_NAME, "summary")]
    assert shown == [f"{method.upper()} {path}" for path, methods in described.items() for method in methods]
    search = next(each for each in page.find_elements(By.TAG_NAME, "details") if each.text.endswith("/search"))
    search.find_element(By.TAG_NAME, "summary").send_keys(Keys.ENTER)
    assert 'strategy?: "all" | "relevant" | "both"' in search.text


def test_the_policy_allows_the_services_own_files_alone(served: tuple[Service, str]) -> None:
    service, _ = served
    kinds = {"": "text/html", "docs": "text/html", "viewer.js": "text/javascript", "api.js": "text/javascript"}
    for path, kind in (kinds | {"viewer.css": "text/css"}).items():
        answer = httpx.get(f"{service.url}/{path}")
        assert answer.headers["Content-Type"].startswith(kind)
        policy = answer.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "http:" not in answer.text
        assert "https:" not in answer.text
    html = httpx.get(service.url, timeout=60).text
    assert "style=" not in html
    assert " on" not in html.replace(" on an open", "").replace(" only", "")
