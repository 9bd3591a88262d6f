"""The recipe of the cookbook, and the examples of the docs, run as written."""

from __future__ import annotations

import contextlib
import io
import re
import runpy
import subprocess
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]


def test_the_recipe(tmp_path, monkeypatch, capsys):
    # In this process: a new one would take most of the time of these tests to import dynamiq.
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    runpy.run_path(str(ROOT / "cookbook" / "dynamiq_agent.py"), run_name="__main__")
    printed = capsys.readouterr().out
    assert "after 5 turns: 10 messages stored" in printed
    assert "all: What is my dog called? You said before: ['My knee hurts.', 'I keep bees.']" in printed
    assert "both: Is Rex a dog? You said before: ['My dog is called Rex.', 'What is my dog called?']" in printed
    assert not list(tmp_path.iterdir())


def test_the_recipe_of_a_served_store(tmp_path, monkeypatch, capfd):
    pytest.importorskip("fastapi")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    run = subprocess.run

    def run_agent_here(command, **options):
        if command[-1] != "agent":
            return run(command, **options)
        with monkeypatch.context() as process:
            process.setattr("os.environ", options["env"])
            process.setattr("sys.argv", command[1:])
            return runpy.run_path(command[1], run_name="__main__")

    monkeypatch.setattr(subprocess, "run", run_agent_here)
    monkeypatch.setattr("sys.argv", ["served_store.py", "--agent-python", "nowhere"])
    runpy.run_path(str(ROOT / "cookbook" / "served_store.py"), run_name="__main__")
    printed = capfd.readouterr().out
    assert "chain: skipped, its framework is not installed" in printed
    assert "agent: What do I keep? You said before: []" in printed
    assert "stored:\n  user: What do I keep?\n  assistant: " in printed
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("page", ["adapters/dynamiq/README.md", "docs/dynamiq-agents.md"])
def test_examples_print_what_they_say(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / page).read_text(), re.MULTILINE | re.DOTALL)
    assert blocks
    for block in blocks:
        output, namespace = io.StringIO(), {"__name__": "example"}
        with contextlib.redirect_stdout(output):
            exec(compile(block, page, "exec", dont_inherit=True), namespace)
        assert output.getvalue().splitlines() == re.findall(r"^print\(.*\)  # (.*)$", block, re.MULTILINE)
        namespace["memory"].memory.close()
