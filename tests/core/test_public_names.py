"""The names that README, the pages and the cookbook show stay importable, and a store loads no other store's client."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
IMPORT = re.compile(r"^\s*from (dynamiq_memory[\w.]*) import (\([^)]*\)|[^\n(]+)", re.MULTILINE)
NAMES = {
    "dynamiq_memory": """BackendAuthenticationError BackendConnectionError BackendError Capabilities ConfigurationError
        DynamiqMemoryError FilterError FormatType InvalidArgumentError Memory MemoryBackend MemoryRetrievalStrategy
        MemorySaveMode Message MessageError MessageRole MessageTooLargeError MissingDependencyError PartialWriteError Pick
        Reason Session count_tokens_approximately register_memory select_to_save to_openai""",
    "dynamiq_memory.backends": """Capabilities Dynamiq DynamoDB InMemory MemoryBackend Pinecone PostgreSQL Qdrant SQLite
        Session Weaviate create_backend""",
    "dynamiq_memory.backends.base": "Capabilities MemoryBackend Session",
    "dynamiq_memory.backends.dynamiq": "Dynamiq",
    "dynamiq_memory.backends.dynamodb": "DynamoDB",
    "dynamiq_memory.backends.in_memory": "InMemory",
    "dynamiq_memory.backends.pinecone": "Pinecone PineconeIndexType PineconeSimilarityMetric",
    "dynamiq_memory.backends.postgresql": "PostgreSQL",
    "dynamiq_memory.backends.qdrant": "Qdrant",
    "dynamiq_memory.backends.sqlite": "SQLite",
    "dynamiq_memory.backends.weaviate": "Weaviate",
    "dynamiq_memory.connections": "AWS Dynamiq Pinecone PostgreSQL Qdrant Weaviate",
    "dynamiq_memory.embedders": "OpenAIDocumentEmbedder as_embedder",
    "dynamiq_memory.exceptions": "BackendError DynamiqMemoryError EmbedderError",
    "dynamiq_memory.memory": "Memory",
    "dynamiq_memory.messages": "Message MessageRole views",
    "dynamiq_memory.ranking": "BM25 Tokenizer",
    "dynamiq_memory.testing": "MemoryBackendConformance",
}
# The client of each store, by its module.
CLIENTS = {
    "dynamiq": {"httpx_retries"},
    "dynamodb": {"boto3", "botocore"},
    "in_memory": set(),
    "pinecone": {"pinecone"},
    "postgresql": {"psycopg", "sqlalchemy"},
    "qdrant": {"qdrant_client"},
    "sqlite": {"sqlalchemy"},
    "weaviate": {"weaviate"},
}


@pytest.mark.parametrize("module", NAMES)
def test_public_names_stay(module: str) -> None:
    is_store = module.count(".") > 1
    found = pytest.importorskip(module, exc_type=ImportError) if is_store else import_module(module)
    for name in NAMES[module].split():
        try:
            assert hasattr(found, name), f"{module}.{name} is gone"
        except ImportError:  # a store's or an embedder's library is not installed here
            assert module in ("dynamiq_memory.backends", "dynamiq_memory.embedders")


def test_what_pages_import_is_there() -> None:
    pages = [ROOT / "README.md", *ROOT.glob("docs/*.md"), *ROOT.glob("cookbook/*.py")]
    shown = {
        (module, name.strip().partition(" as ")[0].strip())
        for page in pages
        for module, names in IMPORT.findall(page.read_text())
        for name in names.partition("#")[0].strip("()\n ").replace("\n", " ").split(",")
        if name.strip() and not module.startswith("dynamiq_memory_agents")
    }
    assert len(shown) > 30
    for module, name in sorted(shown):
        try:
            assert hasattr(import_module(module), name), f"{module}.{name}"
        except ImportError:  # the store's client is not installed here
            assert module.startswith(("dynamiq_memory.backends", "dynamiq_memory.embedders", "dynamiq_memory.testing"))


@pytest.mark.parametrize("store", CLIENTS)
def test_a_store_loads_no_other_store_s_client(store: str) -> None:
    pytest.importorskip(f"dynamiq_memory.backends.{store}", exc_type=ImportError)
    code = f"import sys, dynamiq_memory.backends.{store}; print(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True, timeout=120
    )
    others = set().union(*CLIENTS.values()) - CLIENTS[store]
    assert not others & set(done.stdout.split())


def test_descriptions_keep_their_types() -> None:
    from dynamiq_memory import Memory  # noqa: PLC0415 - beside what it describes

    described = Memory().to_dict()
    assert described["type"] == "dynamiq_memory.memory.Memory"
    assert described["backend"]["type"] == "dynamiq_memory.backends.in_memory.InMemory"
    for store, names in NAMES.items():
        if store.count(".") == 2 and not store.endswith("base"):
            found = pytest.importorskip(store, exc_type=ImportError)
            assert {getattr(found, name).__module__ for name in names.split()} == {store}
