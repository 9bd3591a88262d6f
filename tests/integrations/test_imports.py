"""Adapters import the public parts of this package, and nothing else."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

from dynamiq_memory import exceptions

ROOT = Path(__file__).resolve().parents[2] / "adapters"
PACKAGES = [
    ROOT / "dynamiq" / "dynamiq_memory_agents",
    ROOT / "langchain" / "langchain_dynamiq_memory",
    ROOT / "llama-index" / "llama_index",
]
MODULES = [path for package in PACKAGES for path in sorted(package.rglob("*.py"))]
PUBLIC = ["dynamiq_memory"] + [
    f"dynamiq_memory.{name}" for name in ("backends", "connections", "embedders", "exceptions", "integrations")
]


def imports(path: Path) -> Iterator[tuple[str, list[str]]]:
    """The modules that a module imports, each with the names imported from it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((alias.name, []) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield "." * node.level + (node.module or ""), [alias.name for alias in node.names]


def refused(module: str, names: list[str]) -> list[str]:
    """The parts of an import that are not public."""
    if module.partition(".")[0] != "dynamiq_memory":
        return [module] if module.startswith(".") else []
    if module not in PUBLIC and not module.startswith("dynamiq_memory.integrations."):
        return [module]
    public = getattr(import_module(module), "__all__", None) or vars(exceptions)
    return [f"{module}.{name}" for name in names if name not in public and f"{module}.{name}" not in PUBLIC]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_adapters_import_public_parts_only(path: Path) -> None:
    assert [part for module, names in imports(path) for part in refused(module, names)] == []


def test_all_adapters_are_looked_at() -> None:
    assert all(any(package in path.parents for path in MODULES) for package in PACKAGES)


@pytest.mark.parametrize(
    ("module", "names"),
    [
        ("dynamiq_memory.messages", ["prepare"]),
        ("dynamiq_memory._ids", ["new_id"]),
        ("dynamiq_memory", ["memory"]),
        ("dynamiq_memory", ["*"]),
        ("dynamiq_memory.backends", ["plans"]),
        ("dynamiq_memory.backends.plans", ["run"]),
        ("dynamiq_memory.integrations.native", ["_Encoder"]),
        (".messages", ["to_message"]),
    ],
)
def test_other_imports_are_found(module: str, names: list[str]) -> None:
    assert refused(module, names)
