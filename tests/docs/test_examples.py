"""The examples of the docs run as written, each when copied alone, and print what their comments say."""

from __future__ import annotations

import ast
import builtins
import contextlib
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import langchain_core  # noqa: F401 - it sets filters of warnings, before those of the tests
import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md")), *sorted(ROOT.glob("adapters/*/README.md"))]
# A comment before a block says why it cannot run here. Then its imports run, and its names are checked.
_BLOCK = re.compile(r"^(?:<!-- not run: (?P<needs>.*) -->\n)?```python\n(?P<code>.*?)^```", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"print\(.*\)  # (.*)$")


@dataclass(frozen=True)
class Example:
    """A block of a page."""

    page: str
    line: int
    code: str
    needs: str | None

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def examples() -> Iterator[Example]:
    for page in PAGES:
        text = page.read_text()
        for block in _BLOCK.finditer(text):
            line = text.count("\n", 0, block.start("code")) + 1
            yield Example(page.relative_to(ROOT).as_posix(), line, block["code"], block["needs"])


EXAMPLES = list(examples())


def undefined_names(code: str) -> set[str]:
    """The names that an example uses and neither defines nor imports, wherever in it."""
    used, defined = set(), set(dir(builtins))
    for node in ast.walk(ast.parse(code)):
        match node:
            case ast.Name(id, ast.Load()):
                used.add(id)
            case ast.Name(id) | ast.arg(id) | ast.MatchAs(name=str(id)):
                defined.add(id)
            case ast.FunctionDef(id) | ast.AsyncFunctionDef(id) | ast.ClassDef(id):
                defined.add(id)
            case ast.Import(names) | ast.ImportFrom(names=names):
                defined |= {(alias.asname or alias.name).partition(".")[0] for alias in names}
    return used - defined


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
@pytest.mark.parametrize("example", [each for each in EXAMPLES if each.needs is None], ids=str)
def test_an_example_runs_alone_and_prints_what_it_says(
    example: Example, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "dynamiq_memory_agents" in example.code:
        pytest.importorskip("dynamiq_memory_agents")  # tested in its own environment
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {"__name__": "example"}
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        exec(compile(example.code, str(example), "exec", dont_inherit=True), namespace)
    lines = iter(output.getvalue().splitlines())
    for comment in expected_lines(example.code):
        assert any(announces(comment, line) for line in lines), f"{comment!r} was not printed:\n{output.getvalue()}"
    for value in namespace.values():
        close = getattr(value, "close", None)
        if callable(close) and not isinstance(value, type):
            close()


@pytest.mark.parametrize("example", EXAMPLES, ids=str)
def test_an_example_defines_all_that_it_uses(example: Example) -> None:
    assert undefined_names(example.code) == set()


@pytest.mark.parametrize("example", [each for each in EXAMPLES if each.needs is not None], ids=str)
def test_the_imports_of_an_example_that_needs_a_server_are_right(example: Example) -> None:
    assert example.needs
    assert example.needs.startswith("needs ")
    imports = [node for node in ast.parse(example.code).body if isinstance(node, ast.Import | ast.ImportFrom)]
    exec(compile(ast.Module([*imports], []), str(example), "exec"), {})


def test_pages_have_examples() -> None:
    assert len({example.page for example in EXAMPLES}) > 12
    assert len(EXAMPLES) > 35


@pytest.mark.parametrize(
    ("code", "names"),
    [
        ("print(memory)", {"memory"}),
        ("def f(a, *b):\n    return a, b, c", {"c"}),
        ("import a.b\nfrom c import d as e\na, e, d", {"d"}),
        ("for x in [1]:\n    with open(x) as y:\n        [z for z in y]", set()),
        ("match 1:\n    case int(n):\n        n", set()),
    ],
)
def test_names_that_an_example_lacks_are_found(code: str, names: set[str]) -> None:
    assert undefined_names(code) == names


def test_links_between_the_docs_lead_somewhere() -> None:
    pages = [*ROOT.glob("*.md"), *ROOT.glob("adapters/*/*.md"), *(ROOT / "docs").rglob("*.md")]
    for page in pages:
        for target in re.findall(r"\]\(([^)#\s]+)\)", page.read_text()):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name} links to {target}"
