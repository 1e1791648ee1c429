"""Exports of the books for other programs: exact, streamed, and verifiable against the journal.

An export is of a fixed part of the journal, so that it can be made again to the byte.
docs/exports.md says what each format holds and what each column means.
"""

from ledger.exports.focus import FocusVersion
from ledger.exports.tables import Format
from ledger.exports.verify import Checked, Difference, PoolChecked, verify
from ledger.exports.write import Exported, write

__all__ = [
    "Checked",
    "Difference",
    "Exported",
    "FocusVersion",
    "Format",
    "PoolChecked",
    "verify",
    "write",
]
