"""The examples of the docs run as written and print what their comments say."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    "README.md",
    "adapters/langchain/README.md",
    "adapters/llama-index/README.md",
    "docs/langchain.md",
    "docs/llama-index.md",
    "docs/ranking.md",
    "docs/sqlite.md",
]
_BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"print\(.*\)  # (.*)$")


def expected_lines(block: str) -> list[str]:
    """The lines announced by comments after prints, and by comment lines below a loop of prints."""
    expected = []
    printing = False
    for line in block.splitlines():
        inline = _INLINE.search(line)
        if inline:
            expected.append(inline[1])
        elif printing and line.startswith("# "):
            expected.append(line[2:])
            continue
        printing = line.startswith("    print(")
    return expected


def announces(comment: str, line: str) -> bool:
    """Whether a comment, which may explain or end in an ellipsis, stands for a printed line."""
    return comment == line or comment.startswith((f"{line}:", f"{line},")) or line.startswith(comment.partition("…")[0])


# LangChain's own, and those of LlamaIndex's agents.
@pytest.mark.filterwarnings("ignore:RunnableWithMessageHistory is deprecated")
@pytest.mark.filterwarnings("ignore::pydantic.PydanticDeprecatedSince20")
@pytest.mark.filterwarnings("ignore::pydantic.PydanticDeprecatedSince211")
@pytest.mark.filterwarnings("ignore:.*is_running:DeprecationWarning")
@pytest.mark.parametrize("page", PAGES)
def test_examples_run_and_print_what_they_say(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = _BLOCK.findall((ROOT / page).read_text())
    assert blocks
    namespace: dict[str, object] = {"__name__": "example"}
    for block in blocks:
        output = io.StringIO()
        with contextlib.redirect_stdout(output):
            exec(compile(block, page, "exec", dont_inherit=True), namespace)
        lines = iter(output.getvalue().splitlines())
        for comment in expected_lines(block):
            assert any(announces(comment, line) for line in lines), f"{comment!r} was not printed:\n{output.getvalue()}"
    for value in namespace.values():
        close = getattr(value, "close", None)
        if callable(close) and not isinstance(value, type):
            close()


def test_links_between_the_docs_lead_somewhere() -> None:
    pages = [*ROOT.glob("*.md"), *ROOT.glob("adapters/*/*.md"), *(ROOT / "docs").rglob("*.md")]
    for page in pages:
        for target in re.findall(r"\]\(([^)#\s]+)\)", page.read_text()):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name} links to {target}"
