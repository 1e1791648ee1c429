"""The one place where a verdict or a balance is computed: pure arithmetic on integers.

The in-memory manager, the SQL write path, replay, the verifier and the tests' oracle all call
these functions. There is no I/O, no SQL and no clock here.

`admit` decides whether a reservation is admitted, and changes nothing. `reserve`, `observe`,
`settle` and the others compute the state after an entry, whether it is about to be written or was
written years ago. `begin_window`, `adjust_window` and `roll_over` compute the window of an entry.
`without` computes the window after a correction of an earlier window's usage. `record_import` and
`with_import` are for calls of the past. `RELEASED` has the `admit` of each released version of the
rules. `stand` computes a pool's present balance and window, and `remaining` what is left: every
answer and report calls these two.
"""

from ledger.core.rules.admission import (
    Crossing,
    Denial,
    admit,
    crossing_detail,
    crossings,
    denial_figures,
    denial_of,
    over_request_budget,
    prepaid,
    reached,
    remaining,
    says,
)
from ledger.core.rules.assumed import (
    Assumed,
    assumed,
    charged,
    restated,
    still_assumed,
    swept,
)
from ledger.core.rules.carry_over import (
    adjust_window,
    begin_session,
    begin_window,
    current_window,
    roll_over,
    taken_back,
    without,
)
from ledger.core.rules.credits import Credits, carried_on
from ledger.core.rules.imports import counts_from, record_import, with_import
from ledger.core.rules.leases import (
    Effect,
    abandon,
    correct,
    due,
    expire,
    follow,
    has_ended,
    make_room,
    observe,
    release,
    renew,
    reserve,
    settle,
)
from ledger.core.rules.limits import (
    Charge,
    Dated,
    History,
    Limits,
    Move,
    Moved,
    Point,
    move_of,
    moved_by,
    since,
)
from ledger.core.rules.overdue import Due, overdue
from ledger.core.rules.released import (
    RELEASED,
    current,
    dates_expiries,
    dating_flag,
    stamp,
    version_in,
)
from ledger.core.rules.remainder import counted, least
from ledger.core.rules.standing import Standing, spent_in, stand
from ledger.core.rules.track import Track
from ledger.core.rules.unpriced import left_out, require_priced, unpriced, unpriced_flag

__all__ = [
    "RELEASED",
    "Assumed",
    "Charge",
    "Credits",
    "Crossing",
    "Dated",
    "Denial",
    "Due",
    "Effect",
    "History",
    "Limits",
    "Move",
    "Moved",
    "Point",
    "Standing",
    "Track",
    "abandon",
    "adjust_window",
    "admit",
    "assumed",
    "begin_session",
    "begin_window",
    "carried_on",
    "charged",
    "correct",
    "counted",
    "counts_from",
    "crossing_detail",
    "crossings",
    "current",
    "current_window",
    "dates_expiries",
    "dating_flag",
    "denial_figures",
    "denial_of",
    "due",
    "expire",
    "follow",
    "has_ended",
    "least",
    "left_out",
    "make_room",
    "move_of",
    "moved_by",
    "observe",
    "over_request_budget",
    "overdue",
    "prepaid",
    "reached",
    "record_import",
    "release",
    "remaining",
    "renew",
    "require_priced",
    "reserve",
    "restated",
    "roll_over",
    "says",
    "settle",
    "since",
    "spent_in",
    "stamp",
    "stand",
    "still_assumed",
    "swept",
    "taken_back",
    "unpriced",
    "unpriced_flag",
    "version_in",
    "with_import",
    "without",
]
