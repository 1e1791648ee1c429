"""The contract of budget managers as a test suite, for authors of a manager of their own.

A class that inherits the suite and says how to make a manager is a complete test file::

    import pytest
    from ledger.testing import ManagerContract

    class TestMine(ManagerContract):
        @pytest.fixture
        def make_manager(self):
            return MyManager  # called with SharedPoolBudgetOptions, returns a manager

`AsyncManagerContract` is the same for asyncio, and `ReleaseContract` is for managers that have
`release`. Each test's docstring says what it shows; docs/testing.md has a whole example.
"""

from ledger import MissingExtraError

try:
    import pytest
except ModuleNotFoundError as error:
    raise MissingExtraError(what="pytest", extra="testing") from error

for _room in ("calls", "concurrency", "managers", "releases", "reservations", "settlements"):
    pytest.register_assert_rewrite(f"{__name__}.{_room}")  # failures show the values compared

from ledger.testing.awaited import Awaited  # noqa: E402 - behind the registration
from ledger.testing.managers import AsyncManagerContract, ManagerContract  # noqa: E402
from ledger.testing.releases import ReleaseContract  # noqa: E402

__all__ = ["AsyncManagerContract", "Awaited", "ManagerContract", "ReleaseContract"]
