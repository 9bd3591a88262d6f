"""Check of the installed client package.

`pinecone` used to be called `pinecone-client`, and both install the import package `pinecone`: the one installed last
has overwritten files of the other.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from dynamiq_memory.exceptions import ConfigurationError, MissingDependencyError

NEW, OLD = "pinecone", "pinecone-client"


def check_installation() -> None:
    """Check that exactly one of the two packages is installed.

    Raises:
        ConfigurationError: Both are installed.
        MissingDependencyError: Neither is installed.
    """
    found = {name: number for name in (NEW, OLD) if (number := _version(name)) is not None}
    if len(found) > 1:
        raise ConfigurationError(
            f"pinecone {found[NEW]} and pinecone-client {found[OLD]} are both installed. They are versions of the same "
            "package under two names and have overwritten each other's files: run 'pip uninstall -y pinecone "
            "pinecone-client', then install one, 'pip install \"dynamiq-memory[pinecone]\"' (or, beside the dynamiq "
            "package, 'pip install pinecone-client==3.2.2')"
        )
    if not found:
        raise MissingDependencyError("the Pinecone backend needs pinecone: pip install 'dynamiq-memory[pinecone]'")


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
