"""Keys, and the command that creates them and serves."""

from __future__ import annotations

import json
import re
import signal
import sqlite3
import stat
import time
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from dynamiq_memory.cli import app
from dynamiq_memory.exceptions import BackendError, ConfigurationError, InvalidArgumentError
from dynamiq_memory.server.guard import parse_rate
from dynamiq_memory.server.keys import KeyStore
from tests.service.conftest import item
from tests.service.serving import ServiceProcess


def test_a_key_is_kept_as_a_hash(keys: KeyStore) -> None:
    key, text = keys.create(["m", "n", "m"], "alice", "for the app")
    assert keys.check(text) == key
    assert (key.memory_ids, key.user_id, key.name, key.revoked_at) == (("m", "n"), "alice", "for the app", None)
    secret = text.split("_", 2)[2]
    assert stat.S_IMODE(keys.path.stat().st_mode) == 0o600
    dump = "\n".join(sqlite3.connect(keys.path).iterdump())
    assert secret not in dump
    assert secret.encode() not in b"".join(path.read_bytes() for path in keys.path.parent.iterdir())
    assert secret not in repr(keys.all())


def test_only_the_very_text_is_the_key(keys: KeyStore) -> None:
    _, text = keys.create(["m"])
    _, other = keys.create(["m"])
    mixed = "_".join((*text.split("_")[:2], other.split("_", 2)[2]))
    for wrong in ("", text[:-1], text + "A", text.upper(), mixed, f" {text}", "dm_%_%", "\ud800", "dm__"):
        assert keys.check(wrong) is None


def test_keys_are_known_to_other_processes_at_once(keys: KeyStore) -> None:
    with KeyStore(keys.path) as other:
        key, text = other.create(["m"])
        assert keys.check(text) == key
        other.revoke(key.id)
        assert keys.check(text) is None
        assert [each.revoked_at is None for each in keys.all()] == [False]


def test_wrong_keys_are_refused(keys: KeyStore, tmp_path: Path) -> None:
    for memory_ids in ([], [""], ["a b"], ["a/b"], ["*"]):
        with pytest.raises(InvalidArgumentError):
            keys.create(memory_ids)
    with pytest.raises(InvalidArgumentError):
        keys.create(["m"], "")
    assert keys.all() == []
    with pytest.raises(ConfigurationError, match="cannot be opened"):
        KeyStore(tmp_path / "no folder" / "keys.db")
    with KeyStore(tmp_path / "keys.db") as closed:
        closed.close()
        with pytest.raises(BackendError, match="keys"):
            closed.check("dm_")


def test_the_command_makes_lists_and_revokes_keys(tmp_path: Path) -> None:
    run, file = CliRunner().invoke, ["--keys", str(tmp_path / "keys.db")]
    none = run(app, ["keys", "list", *file])
    assert (none.stdout, "no keys" in none.stderr) == ("", True)
    made = run(app, ["keys", "create", "--memory", "a", "--memory", "b", "--user", "u", "--name", "test", *file])
    text = made.stdout.strip()
    assert "first key" in made.stderr
    assert run(app, ["keys", "create", "--memory", "a", *file]).stderr == ""
    assert re.fullmatch(r"dm_[0-9a-f]{12}_[\w-]{43}", text)
    key_id = text.split("_")[1]
    heading, line, _ = run(app, ["keys", "list", *file]).stdout.splitlines()
    assert heading.split("\t")[:2] == ["ID", "STATE"]
    assert re.fullmatch(rf"{key_id}\tvalid\t[-\d]+ [\d:]+\ta,b\tuser u\ttest", line)
    assert run(app, ["keys", "revoke", text, *file]).output.strip() == f"{key_id} is revoked"
    assert "revoked" in run(app, ["keys", "list", *file]).output
    for given in (key_id, text):
        again = run(app, ["keys", "revoke", given, *file])
        assert (again.exit_code, text in again.output) == (1, False)
    assert run(app, ["keys", "create", "--memory", "a b", *file]).exit_code == 2


def test_the_command_refuses_what_would_let_anybody_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    command = ["serve", "--backend", "memory://", "--host", "0.0.0.0"]
    refused = CliRunner().invoke(app, command)
    assert (refused.exit_code, "without keys" in refused.output) == (2, True)
    # A named key file that does not exist must not mean that everyone is admitted.
    missing = CliRunner().invoke(app, [*command[:3], "--keys", "typo.db"])
    assert (missing.exit_code, "key file 'typo.db' does not exist" in missing.output) == (2, True)
    missing = CliRunner().invoke(app, command[:3], env={"DYNAMIQ_MEMORY_KEYS": "typo.db"})
    assert (missing.exit_code, "key file 'typo.db' does not exist" in missing.output) == (2, True)


def test_the_command_says_what_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    configured: list[str] = []
    monkeypatch.setattr(
        "dynamiq_memory.cli.serving.configure", configured.append
    )  # would change the logs of other tests
    for options, said in (
        (["--backend", "nothing://x"], "nothing"),
        (["--backend", "sqlite:///a.db?index=x"], "no option 'index'"),
        (["--backend", "memory://", "--memory", "a/b"], "memory id 'a/b'"),
    ):
        wrong = CliRunner().invoke(app, ["serve", *options])
        assert (wrong.exit_code, said in wrong.output) == (2, True)
    assert configured == ["info", "info"]  # opening a store, which may take long, is logged
    assert re.fullmatch(r"dynamiq-memory \d+\.\d+\.\d+\n", CliRunner().invoke(app, ["--version"]).output)


def test_what_a_key_is_called_cannot_change_the_terminal(tmp_path: Path) -> None:
    file = ["--keys", str(tmp_path / "keys.db")]
    with KeyStore(tmp_path / "keys.db") as keys:
        keys.create(["m"], "Zoë\u202e", "red \x1b[31m\nrevoked\t")
    lines = CliRunner().invoke(app, ["keys", "list", *file]).stdout.splitlines()
    assert len(lines) == 2
    assert lines[1].endswith("user Zoë\\u202e\tred \\x1b[31m\\nrevoked\\t")


@pytest.mark.parametrize("rate", ["0", "-1/second", "0/second", "nan/second", "1.5/second", "often"])
def test_a_rate_is_checked(rate: str) -> None:
    with pytest.raises(ConfigurationError, match="rate"):
        parse_rate(rate)


@pytest.mark.parametrize("number", ["nan", "inf", "-inf", "-1", "0", "x"])
def test_each_number_of_an_option_is_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: str) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("dynamiq_memory.server.run.serve", lambda *_: pytest.fail("served"))
    names = ("max-body", "max-page-size", "max-connections", "max-concurrent", "body-timeout", "request-timeout")
    for name in names:
        refused = CliRunner().invoke(app, ["serve", "--backend", "memory://", f"--{name}", number])
        assert refused.exit_code == 2, name


def test_the_command_serves_and_its_log_names_nobody(tmp_path: Path) -> None:
    with KeyStore(tmp_path / "keys.db") as keys:
        _, text = keys.create(["m"])
    service = ServiceProcess(tmp_path)
    service.start()
    try:
        path, headers = f"{service.url}/v1/memories/m/items", {"Authorization": f"Bearer {text}"}
        assert httpx.post(path, json=item("the content", "user-name"), timeout=60).status_code == 401
        assert httpx.post(path, json=item("the content", "user-name"), headers=headers, timeout=60).status_code == 201
        assert (
            httpx.get(f"{path}?user_id=user-name", headers=headers, timeout=60).json()["data"][0]["user_id"]
            == "user-name"
        )
        deadline = time.monotonic() + 120
        while (tmp_path / "log").read_text().count("/items") < 2:  # written after the answer
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert service.process is not None
        service.process.send_signal(signal.SIGINT)
        assert service.process.wait(120) == 128 + signal.SIGINT
    finally:
        service.kill()
    log = (tmp_path / "log").read_text()
    requests = [json.loads(line) for line in log.splitlines()]
    assert [line["status"] for line in requests if line.get("route", "").endswith("/items")] == [201, 200]
    assert [line["status"] for line in requests if line.get("route") == "other"] == [401]
    for name in ("the content", "user-name", text, text.split("_", 2)[2]):
        assert name not in log


def test_keys_that_were_all_revoked_still_lock_the_service(tmp_path: Path) -> None:
    with KeyStore(tmp_path / "keys.db") as keys:
        key, text = keys.create(["m"])
        keys.revoke(key.id)
    service = ServiceProcess(tmp_path)
    service.start()
    try:
        for headers in ({}, {"Authorization": f"Bearer {text}"}):
            assert httpx.get(f"{service.url}/v1/memories/m/items", headers=headers, timeout=60).status_code == 401
    finally:
        service.kill()
