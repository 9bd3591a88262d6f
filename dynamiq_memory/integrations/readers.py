"""Readers of the conversations that a framework stored, for `import_from` and `dynamiq-memory import --from`.

An adapter registers a `Reader` as an entry point in the group `dynamiq_memory.readers`, under the name of the format.
"""

from dynamiq_memory.transfer.readers.base import Entry, Reader, expect, json_in, parsed
from dynamiq_memory.transfer.readers.tables import rows_of
from dynamiq_memory.transfer.streams import File

__all__ = ["Entry", "File", "Reader", "expect", "json_in", "parsed", "rows_of"]
