"""Files of messages, whole and broken."""

from __future__ import annotations

import errno
import gzip
import io
import json
import os
import re
import tracemalloc
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from backports import zstd

from dynamiq_memory.backends import InMemory
from dynamiq_memory.exceptions import ConfigurationError, MissingDependencyError
from dynamiq_memory.transfer import Totals, TransferError, export_to, files, import_from, streams, verify
from tests.transfer.conversations import conversations, plain
from tests.transfer.test_copying import filled, small_batches

HEADER = b'{"format": "dynamiq-memory", "version": 1}\n'


def line(**changes: Any) -> bytes:
    fields = {"role": "user", "content": "Hi", "id": "a", "timestamp": 1.0, "metadata": {}} | changes
    return json.dumps({key: value for key, value in fields.items() if value is not ...}).encode() + b"\n"


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
def test_a_file_is_lossless(tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    small_batches(monkeypatch, 4)
    source, target, file = filled(conversations()), InMemory(), tmp_path / f"export.jsonl{suffix}"
    seen: list[Totals] = []
    monkeypatch.setattr(files, "BATCH", 4)
    assert export_to(file, source, progress=seen.append) == Totals(15, read=15, written=15)
    assert len(seen) == 3
    assert [each.name for each in tmp_path.iterdir()] == [file.name]
    with pytest.raises(ConfigurationError, match="exists: choose another name"):
        export_to(file, source)
    assert import_from(file, target).written == 15
    assert verify(source, target).identical
    assert verify(target, source).identical
    assert import_from(file, target) == Totals(read=15, unchanged=15)


def test_a_stream_stays_open_and_filters_apply() -> None:
    stream, target = io.BytesIO(), InMemory()
    export_to(stream, filled(plain(10, sessions=2)), filters={"session_id": "s-1"})
    stream.seek(0)
    lines = stream.read().splitlines()
    assert json.loads(lines[0]) == {"format": "dynamiq-memory", "version": 1}
    assert json.loads(lines[1]) == {
        "role": "user",
        "content": "message 5",
        "id": "m-5",
        "timestamp": 1.7e9 + 5,
        "metadata": {"user_id": "u", "session_id": "s-1"},
    }
    stream.seek(0)
    assert import_from(stream, target, filters={"timestamp": {"lt": 1.7e9 + 7}}).read == 2
    assert not stream.closed


def test_messages_without_a_user_or_session_get_the_given_ones() -> None:
    data = HEADER + line() + line(id="b", metadata={"user_id": "u-1", "kept": 1})
    target = InMemory()
    import_from(io.BytesIO(data), target, user_id="u-2", session_id="s", filters={"session_id": "s"})
    assert [(each.id, each.user_id, each.session_id) for each in target.get_all()] == [
        ("a", "u-2", "s"),
        ("b", "u-1", "s"),
    ]
    assert import_from(io.BytesIO(data), target, user_id="u-2", session_id="s").unchanged == 2


BAD_FILES = {
    "empty": (b"", "line 1 is not .*name the file's format"),
    "another format": (b'[{"role": "user"}]\n', "line 1 is not"),
    "a later version": (
        b'{"format": "dynamiq-memory", "version": 2}\n',
        "line 1 says version 2, .*update dynamiq-memory",
    ),
    "a version in quotes": (
        b'{"format": "dynamiq-memory", "version": "1"}\n',
        "line 1 says version '1', which is not a whole number: write 1",
    ),
    "bad Base64": (
        HEADER + line() + line(id="b", metadata={"k": {"$type": "bytes", "value": "MQ=!="}}),
        "line 3: .*base64",
    ),
    "half a line": (HEADER + line() + line(id="b")[:30], "line 3: this is not JSON, or not whole .*cut off"),
    "not UTF-8": (
        HEADER + line() + line(content="…", id="b").replace(b"\\u2026", b"\xe9"),
        "line 3: byte .* is not UTF-8",
    ),
    "UTF-16": ((HEADER + line()).decode().encode("utf-16"), "line 1 is not"),
    "an unknown role": (HEADER + line() + line(role="bot", id="b"), "line 3: role 'bot' is unknown: use one of user"),
    "no id": (HEADER + line() + line(id=...), "line 3: the message has no id"),
    "no time": (HEADER + line() + line(id="b", timestamp=None), "line 3: the message has no timestamp"),
    "an unknown field": (HEADER + line() + line(id="b", text="Hi"), "line 3: text is invalid"),
    "no object": (HEADER + line() + b"7\n", "line 3: a message is an object"),
    "what no store takes": (HEADER + line() + line(id="b", metadata={"user_id": ""}), "line 3: metadata.*not be empty"),
    "a bad tag": (
        HEADER + line() + line(id="b", metadata={"k": {"$type": "date", "value": "x"}}),
        "line 3: .*isoformat",
    ),
    "one id twice": (HEADER + line() + line(content="Ho"), "line 3: message a .*other content: choose"),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_a_broken_file_is_refused_with_its_line(case: str) -> None:
    data, error = BAD_FILES[case]
    target = InMemory()
    with pytest.raises(TransferError, match=error):
        import_from(io.BytesIO(data), target)
    # Nothing wrong was written, and what is right is written by the next attempt.
    assert [each.content for each in target.get_all()] in ([], ["Hi"])
    if data.startswith(HEADER):
        skipped: list[str] = []
        import_from(io.BytesIO(data), target, on_error="skip", on_conflict="skip", report=skipped.append)
        assert [each.content for each in target.get_all()] == ["Hi"]
        assert case == "one id twice" or re.search(error, skipped[0])


def test_an_id_twice_in_batches_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    small_batches(monkeypatch, 1)
    data = HEADER + line() + line() + line(content="Ho")
    target = InMemory()
    assert import_from(io.BytesIO(data), target, on_conflict="replace") == Totals(
        read=3, written=1, unchanged=1, replaced=1
    )
    assert [each.content for each in target.get_all()] == ["Ho"]


def test_blank_lines_and_a_byte_order_mark_are_ignored() -> None:
    target = InMemory()
    import_from(io.BytesIO(b"\xef\xbb\xbf" + HEADER + b"\n" + line() + b" \n"), target)
    assert target.count() == 1


@pytest.mark.parametrize(("suffix", "compress"), [(".gz", gzip.compress), (".zst", zstd.compress)])
def test_a_compressed_file_that_is_cut_off(tmp_path: Path, suffix: str, compress: Any) -> None:
    whole = compress(HEADER + b"".join(line(id=f"m-{n}", content=os.urandom(5000).hex()) for n in range(50)))
    file, target = tmp_path / f"cut{suffix}", InMemory()
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(TransferError, match=r"cannot be read after line .*end-of-stream"):
        import_from(file, target)
    file.write_bytes(b"no archive at all")
    with pytest.raises(TransferError, match="cannot be read after line 0"):
        import_from(file, target)
    with pytest.raises(TransferError, match="the file cannot be read: "):
        import_from(file, target, format="claude")


def test_a_file_that_cannot_be_opened_or_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = filled(plain(3))
    with pytest.raises(TransferError, match=r"gone.jsonl' cannot be opened: No such file .*: check its name"):
        import_from(tmp_path / "gone.jsonl", InMemory())
    with pytest.raises(TransferError, match="No such file or directory"):
        export_to(tmp_path / "nowhere" / "a.jsonl", source)
    with (
        Path("/dev/full").open("wb", buffering=0) as full,
        pytest.raises(TransferError, match="No space left on device"),
    ):
        export_to(full, source)

    def no_space(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(TransferError, match=r"a.jsonl' cannot be written: No space left on device"):
        export_to(tmp_path / "a.jsonl", source)
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(streams, "zstd", None)
    with pytest.raises(MissingDependencyError, match="pip install 'dynamiq-memory"):
        export_to(tmp_path / "a.zst", source)


def test_a_caller_that_fails_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "BATCH", 1)
    with pytest.raises(ZeroDivisionError):
        export_to(tmp_path / "a.jsonl", filled(plain(3)), progress=lambda _: 1 // 0)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("format", ["dynamiq-memory", "openai-chat"])
def test_a_line_that_is_too_long_is_never_held(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    format: str,  # noqa: A002
) -> None:
    monkeypatch.setattr(streams.numbered_lines, "__defaults__", (1 << 20,))
    good = HEADER + line() if format == "dynamiq-memory" else b'{"messages": [{"role": "user", "content": "Hi"}]}\n'
    file, target, skipped = tmp_path / "a.jsonl.gz", InMemory(), list[str]()
    with gzip.open(file, "wb", 1) as stream:
        stream.write(good)
        for _ in range(32):
            stream.write(b"x" * (1 << 20))
        stream.write(b"\n" + good.removeprefix(HEADER).replace(b'"a"', b'"b"'))
    options: dict[str, Any] = {"format": format, "max_line_bytes": 1 << 20}
    tracemalloc.start()
    try:
        import_from(file, target, **options, on_error="skip", report=skipped.append)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 5 << 20
    assert (target.count(), len(skipped)) == (2, 1)
    with pytest.raises(
        TransferError, match=r"line [23]: this has more than 1,048,576 bytes: .* give a larger max_line_"
    ):
        import_from(file, InMemory(), **options)


def test_a_line_of_the_maximum_size_is_read() -> None:
    data, size = HEADER + line() + line(id="b").rstrip(b"\n"), len(line())
    assert import_from(io.BytesIO(data), InMemory(), max_line_bytes=size - 1).written == 2
    with pytest.raises(TransferError, match="line 2: this has more than"):
        import_from(io.BytesIO(data), InMemory(), max_line_bytes=size - 2)
    with pytest.raises(ConfigurationError, match="max_line_bytes"):
        import_from(io.BytesIO(data), InMemory(), max_line_bytes=0)


def no_links(*_: object) -> None:
    raise OSError(errno.EPERM, os.strerror(errno.EPERM))


@pytest.mark.parametrize("link", [os.link, no_links])
def test_no_file_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, link: Any) -> None:
    monkeypatch.setattr(os, "link", link)
    monkeypatch.setattr(files, "BATCH", 1)
    file, mine = tmp_path / "a.jsonl", tmp_path / "a.jsonl.part"
    mine.write_text("mine")
    # A second export to the same name begins and ends within the first.
    with pytest.raises(ConfigurationError, match="exists: choose another name"):
        export_to(file, filled(plain(2)), progress=lambda _: file.exists() or export_to(file, filled(plain(3))))
    assert (mine.read_text(), sorted(each.name for each in tmp_path.iterdir())) == ("mine", [file.name, mine.name])
    assert import_from(file, InMemory()).written == 3
    dangling = tmp_path / "b.jsonl"
    dangling.symlink_to("nowhere")
    with pytest.raises(ConfigurationError, match="exists: choose another name"):
        export_to(dangling, filled(plain(1)))


def test_a_file_that_cannot_get_its_name_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "link", no_links)
    monkeypatch.setattr(Path, "replace", no_links)
    with pytest.raises(TransferError, match=r"a.jsonl' cannot be written: Operation not permitted"):
        export_to(tmp_path / "a.jsonl", filled(plain(1)))
    assert list(tmp_path.iterdir()) == []


def test_the_schema_in_the_docs_describes_each_line() -> None:
    page = Path(__file__).parents[2] / "docs" / "moving.md"
    (text,) = re.findall(r"```json\n(.*?)```", page.read_text(), re.DOTALL)
    schema = json.loads(text)
    assert jsonschema_rs.meta.is_valid(schema)
    stream = io.BytesIO()
    export_to(stream, filled(conversations()))
    for each in stream.getvalue().splitlines()[1:]:
        jsonschema_rs.validate(schema, json.loads(each))
