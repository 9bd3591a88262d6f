"""Moving and deleting messages."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dynamiq_memory.backends import SQLite
from dynamiq_memory.cli import moving
from tests.cli.conftest import Run, chat


def test_copy_and_verify(run: Run, store: str, folder: Path) -> None:
    target = "sqlite:///b.db"
    assert run("copy", store, target, "--dry-run").stdout == "5 messages would be written\n"
    assert not (folder / "b.db").exists()
    assert run("copy", store, target, "--user", "u-2", "--since", "2025-01-01").stdout == "1 message was written\n"
    assert "4 messages would be written; 1 was there already" in run("copy", store, target, "--dry-run").stdout
    differing = run("verify", store, target, code=1)
    assert differing.stdout.splitlines()[1] == "u-1\ts-1\t4\t0\tm-0\t"
    assert differing.stderr == "sessions that differ: 1 of 2\n"
    assert json.loads(run("copy", store, target, "--json").stdout) == {
        "expected": 5,
        "read": 5,
        "written": 4,
        "replaced": 0,
        "unchanged": 1,
        "kept": 0,
        "skipped": 0,
    }
    assert run("verify", store, target).stdout == "identical: 5 messages in 2 sessions\n"
    assert json.loads(run("verify", target, store, "--json").stdout)["identical"] is True
    with SQLite(folder / "b.db") as backend:
        backend.add(chat()[0].model_copy(update={"content": "edited"}))
    edited = run("verify", store, target, code=1)
    assert edited.stdout.splitlines()[1] == "u-1\ts-1\t4\t4\tm-0\tcontent"
    refused = run("copy", store, target, code=1)
    assert refused.stderr.startswith("error: message m-0 of user_id='u-1', session_id='s-1' is in the target")
    assert "choose --on-conflict replace for this one, or --on-conflict skip to keep the other\n" in refused.stderr
    assert "1 was kept" in run("copy", store, target, "--on-conflict", "skip").stdout
    assert "1 was replaced" in run("copy", store, target, "--on-conflict", "replace").stdout


def test_export_and_import(run: Run, store: str, folder: Path) -> None:
    assert run("export", store, "a.jsonl.zst").stdout == "5 messages were written\n"
    assert "exists: choose another name" in run("export", store, "a.jsonl.zst", code=2).stderr
    assert run("import", "a.jsonl.zst", "sqlite:///b.db", "--json").stdout.startswith('{"expected":null,"read":5,')
    streamed = run("export", store, "-", "--user", "u-2", "--json")
    assert json.loads(streamed.stderr) == {"written": 1}
    broken = streamed.stdout_bytes + b'{"role": "bot"}\n'
    stopped = run("import", "-", "sqlite:///c.db", data=broken, code=1).stderr.splitlines()
    assert stopped[0].startswith("error: line 3: the message has no content")
    assert stopped[1] == "messages written before: 0"
    skipped = run("import", "-", "sqlite:///c.db", "--on-error", "skip", data=broken)
    assert skipped.stderr.startswith("skipped: line 3: ")
    assert skipped.stdout == "1 message was written; 1 was skipped\n"
    short = run("import", "-", "sqlite:///d.db", "--max-line-bytes", "60", data=broken, code=1)
    assert "line 2: this has more than 60 bytes: " in short.stderr
    assert "give a larger --max-line-bytes" in short.stderr


@pytest.mark.parametrize(
    ("arguments", "error", "code"),
    [
        (["copy", "sqlite:///a.db", "sqlite:///./a.db"], "the same store", 2),
        (["copy", "sqlite:///typo.db", "sqlite:///b.db"], "there is no SQLite file", 1),
        (["copy", "sqlite:///a.db", "nothing://b"], "no backend is known for nothing://", 2),
        (["copy", "sqlite:///a.db", "sqlite:///b.db", "--since", "soon"], "--since 'soon' is not a time", 2),
        (["copy", "sqlite:///a.db", "sqlite:///b.db", "--on-conflict", "merge"], "'merge' is not one of", 2),
        (["import", "gone.jsonl", "sqlite:///b.db"], "'gone.jsonl' cannot be opened: No such file", 1),
        (["import", "a.db", "sqlite:///b.db"], "line 1 is not", 1),
        (["import", "sqlite:///a.db", "sqlite:///b.db"], "use `dynamiq-memory copy FROM TO`", 2),
        (["sessions", "a.db"], "'a.db' is not a URL, nor a name in", 2),
        (["sessions"], "Missing argument 'STORE'", 2),
        (["export", "postgresql://:secret@host:port/db", "-"], "write postgresql://user:password@host:port", 2),
    ],
)
def test_a_mistake_is_explained_without_a_traceback(
    run: Run, store: str, folder: Path, arguments: list[str], error: str, code: int
) -> None:
    result = run(*arguments, code=code)
    assert error in " ".join(result.stderr.replace("│", " ").split())
    assert "Traceback" not in result.output
    assert "secret" not in result.output
    assert arguments[0] == "copy" or not (folder / "b.db").exists()


def test_an_interrupted_copy_says_how_to_go_on(run: Run, store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(moving, "copy_store", interrupted)
    assert "give the same command again" in run("copy", store, "sqlite:///b.db", code=130).stderr


def test_forgetting_counts_asks_and_gives_a_receipt(run: Run, store: str, folder: Path) -> None:
    run("copy", store, "sqlite:///b.db")
    asked = run("forget", store, "--user", "u-1", "--also", "sqlite:///b.db", data=b"n\n", code=1)
    assert "delete 8 messages?" in asked.output
    with SQLite(folder / "a.db") as backend:
        assert backend.count() == 5
    for answer in ([], ["--yes"]):
        assert run("forget", store, "--user", "nobody", *answer).output == "nothing to delete\n"
    assert "give --yes" in run("forget", store, "--user", "u-1", data=b"", code=2).stderr
    assert run("forget", store, "--user", "u-1", data=b"y\n").stdout.endswith("4 messages were deleted\n")
    receipt = run("forget", store, "--user", "u-1", "--also", "sqlite:///b.db", "--yes", "--json")
    found = json.loads(receipt.stdout)
    assert [(each["deleted"], each["left"]) for each in found["stores"]] == [(0, 0), (4, 0)]
    assert (found["is_complete"], len(found["digest"])) == (True, 64)
    assert "may remain: " in receipt.stderr
    with SQLite(folder / "a.db") as backend:
        assert [each.user_id for each in backend.get_all()] == ["u-2"]


def test_names_of_stores_and_variables(run: Run, store: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = folder / "config" / "dynamiq-memory" / "stores.toml"
    error = run("sessions", "local", code=2).stderr
    assert f"nor a name in {file}: for a SQLite file, use sqlite:///local" in error
    file.parent.mkdir(parents=True)
    file.write_text('local = "sqlite:///$FOLDER/a.db"\nwhole = "${URL}"\nwrong = 7\n')
    assert "the environment has no FOLDER: set it" in run("stats", "local", code=2).stderr
    monkeypatch.setenv("FOLDER", str(folder / "with space"))
    (folder / "with space").mkdir()
    (folder / "a.db").rename(folder / "with space" / "a.db")
    monkeypatch.setenv("URL", f"sqlite:///{folder}/with space/a.db")
    for name in ("local", "whole", "$URL", "sqlite:///${FOLDER}/a.db"):
        assert "messages                5" in run("stats", name).stdout
    served: list[str] = []
    monkeypatch.setattr("dynamiq_memory.server.run.serve", lambda opened, *_: served.append(opened.db_path))
    monkeypatch.setattr("dynamiq_memory.cli.serving.configure", lambda _: None)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    run("serve", "--backend", "local")
    assert served == [str(folder / "with space" / "a.db")]
    assert "wrong must be a URL, such as" in run("stats", "wrong", code=2).stderr
    assert "it has local, whole, wrong:" in run("stats", "locla", code=2).stderr
    file.write_text("local = ")
    assert f"{file} cannot be read" in run("stats", "local", code=2).stderr


COMMANDS = ["sessions", "show", "search", "recall", "stats", "doctor", "copy", "verify", "export", "import", "backup"]


@pytest.mark.parametrize("command", [*COMMANDS, "forget", "serve"])
def test_help_has_an_example_and_80_columns(run: Run, command: str) -> None:
    text = run(command, "--help").stdout
    assert f"Example: dynamiq-memory {command} " in text
    assert max(map(len, text.splitlines())) <= 80


def test_a_reader_that_has_read_enough_ends_an_export_quietly(store: str, folder: Path) -> None:
    command = Path(sys.executable).with_name("dynamiq-memory")
    with subprocess.Popen([command, "export", store, "-"], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as exporting:
        assert exporting.stdout is not None
        exporting.stdout.close()
        assert exporting.stderr is not None
        assert exporting.stderr.read() == b""
        assert exporting.wait(300) == 1  # as of the other commands


def test_the_installed_command_in_a_pipe(store: str, folder: Path) -> None:
    command = Path(sys.executable).with_name("dynamiq-memory")
    environment = {**os.environ, "PYTHONWARNINGS": "error", "NO_COLOR": "1"}
    with subprocess.Popen([command, "export", store, "-"], stdout=subprocess.PIPE, env=environment) as exporting:
        importing = subprocess.run(
            [command, "import", "-", "sqlite:///b.db"],
            stdin=exporting.stdout,
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
    assert (importing.stdout, importing.stderr) == ("5 messages were written\n", "")
    assert (exporting.returncode, importing.returncode) == (0, 0)
    with SQLite(folder / "a.db") as one, SQLite(folder / "b.db") as other:
        assert one.get_all() == other.get_all()
