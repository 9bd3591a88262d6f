"""What is typed in one way is found when it is typed in another."""

from __future__ import annotations

import pytest

from dynamiq_memory import Memory

# A message, a question, and a message that is not the answer.
PAIRS = [
    # Identifiers
    ("The crash is in getUserName.", "get user name", "The user changed the name of the group."),
    ("I would get the user name from the session.", "getUserName", "The session has a group name."),
    ("Set user_name before the call.", "userName", "Set the user before the call."),
    ("Set userName before the call.", "user_name", "Set the name before the call."),
    ("HTTPServer does not start.", "http server", "The other server does not start."),
    ("The constant is MAX_RETRY_COUNT.", "maxRetryCount", "The maximum count is ten."),
    ("It raises a NullPointerException.", "null pointer exception", "It raises another exception."),
    ("parse_json_file is slow.", "parse json file", "Reading a file is slow."),
    ("We import my.package.utils there.", "my package utils", "We import another package there."),
    ("The report is in report_final-v2.pdf.", "report final v2 pdf", "The report is in a pdf."),
    # Words with hyphens
    ("Send it by e-mail.", "email", "Send it by mail."),
    ("Send it by email.", "e-mail", "Send it by letter."),
    ("The wifi is down.", "Wi-Fi", "The lift is down."),
    ("The Wi-Fi is down.", "wifi", "The lift is down."),
    ("I bought a T-shirt.", "tshirt", "I bought a shirt."),
    ("We follow up on the well-being survey.", "wellbeing", "We follow up on the survey."),
    ("She is a co-worker.", "coworker", "She is a worker."),
    ("Our pre-order starts.", "preorder", "Our order starts."),
    # Letters and digits
    ("The part number is AB1234X.", "part number AB-1234-X", "The part number is AB9876Y."),
    ("The part number is AB-1234-X.", "AB1234X", "The part number is AB-9876-Y."),
    ("We use gpt4o for that.", "gpt-4o", "We use gpt-3 for that."),
    ("We use gpt-4o for that.", "gpt4o", "We use gpt-3 for that."),
    ("We use GPT 4 for that.", "gpt4", "We use GPT 3 for that."),
    ("It has an RTX4090.", "rtx 4090", "It has an RTX 3060."),
    ("It has an RTX 4090.", "RTX4090", "It has an RTX 3060."),
    ("My phone is an iPhone15.", "iphone 15", "My old phone is an iPhone 12."),
    ("The service runs on node.js.", "nodejs", "The service runs on a node."),
    ("The service runs on nodejs.", "node.js", "The service runs on another node."),
    ("We are on v1.2.3 now.", "version 1.2.3", "We were on 1.3.2 then."),
    ("We are on version 1.2.3 now.", "v1.2.3", "We were on v1.3.2 then."),
    ("It needs python-3.11.", "Python 3.11", "It needs Python 3.9."),
    ("Wake me at 7am.", "7 am", "Wake me at 8 am."),
    # Numbers
    ("Call +49 30 1234-567.", "+49301234567", "Call +49 30 7654-321."),
    ("Call +49301234567.", "+49 30 1234-567", "Call +49307654321."),
    ("Call (555) 123-4567.", "5551234567", "Call (555) 765-4321."),
    ("Call 555.123.4567.", "555-123-4567", "Call 555-765-4321."),
    ("Call 030 1234567.", "+49 30 1234567", "Call 030 7654321."),
    ("The budget is 1,000,000.", "1000000", "The budget is 2,000,000."),
    ("The budget is 1 000 000.", "1,000,000", "The budget is 2 000 000."),
    ("The price was 3.000,50.", "3000.50", "The price was 4.000,50."),
    ("The price was $1,200.", "1200", "The price was $1,300."),
    ("It happened on 12/05/2023.", "12.05.2023", "It happened on 13/06/2022."),
    ("It happened on 2023-05-12.", "20230512", "It happened on 2022-06-13."),
    ("It weighs 1,5 kg.", "1.5 kg", "It weighs 1.7 kg."),
    ("It costs २५०० rupees.", "2500 rupees", "It costs 3500 rupees."),
    # Hashes
    ("The fix is a1b2c3d4e5f60718293a4b5c6d7e8f9012345678.", "a1b2c3d", "The fix is b2c3d4e5f60718293a4b."),
    ("The fix is a1b2c3d.", "a1b2c3d4e5f6", "The fix is b2c3d4e."),
    ("The trace is 550e8400-e29b-41d4-a716-446655440000.", "550e8400", "The trace is 6ba7b810-9dad-11d1."),
    ("The branch is fix-a1b2c3d4e5f6.", "a1b2c3d", "The branch is fix-b2c3d4e5."),
    # Apostrophes
    ("It is six o\u2019clock.", "o'clock", "It is late, look at the clock."),
    ("O\u2019Neil called.", "oneil", "Neil called."),
    ("On boit de l\u2019eau.", "eau", "On boit du vin."),
    # Irregular forms
    ("I bought a canoe.", "buy", "I sold a canoe."),
    ("Two mice live there.", "mouse", "Two cats live there."),
]


@pytest.mark.parametrize(("text", "question", "other"), PAIRS)
def test_a_message_is_found_first(text: str, question: str, other: str) -> None:
    with Memory(filters={"user_id": "u", "session_id": "s"}) as memory:
        for each in ("What is it?", text, "Thanks, I will note that.", "Anything else?", other):
            memory.add("user", each)
        assert [message.text for message in memory.search(question, limit=1)] == [text]


@pytest.mark.parametrize("question", ["dont", "don't", "don\u2019t"])
def test_contractions_are_stop_words_with_any_apostrophe(question: str) -> None:
    with Memory(filters={"user_id": "u", "session_id": "s"}) as memory:
        memory.add("user", "I don't know.")
        memory.add("user", "Please note the birthday.")
        assert [message.text for message in memory.search(f"{question} the birthday")] == ["Please note the birthday."]
