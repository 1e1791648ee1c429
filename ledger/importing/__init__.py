"""Imports: calls from logs, traces and exports of providers, into a pool in use."""

from ledger.importing.calls import Calls
from ledger.importing.importing import Changed, import_calls
from ledger.importing.one_call import record_call
from ledger.importing.values import Imported

__all__ = ["Calls", "Changed", "Imported", "import_calls", "record_call"]
