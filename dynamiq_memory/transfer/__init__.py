"""Moving messages: from one store to another, into a file and back.

    from dynamiq_memory.transfer import copy, verify

    copy(source, target)
    assert verify(source, target).identical

Everything is read and written in batches, so memory does not grow with the number of messages. Progress is not
recorded: a message that the target has already is not written again, so an interrupted copy goes on when it is made
again.
"""

from dynamiq_memory.exceptions import TransferError
from dynamiq_memory.transfer.copying import Difference, Verification, copy, verify
from dynamiq_memory.transfer.files import export_to, import_from
from dynamiq_memory.transfer.writing import OnConflict, OnError, Totals

__all__ = [
    "Difference",
    "OnConflict",
    "OnError",
    "Totals",
    "TransferError",
    "Verification",
    "copy",
    "export_to",
    "import_from",
    "verify",
]
