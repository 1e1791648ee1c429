"""The one place where a verdict or a balance is computed: pure arithmetic on integers.

The in-memory manager, the SQL write path, replay, the verifier and the tests' oracle all call
these functions. There is no I/O, no SQL and no clock here.

`admit` answers "may I?" and changes nothing; `reserve`, `observe`, `settle` and the others say what
an entry leaves behind, the same whether it is about to be written or was written years ago;
`begin_window`, `adjust_window` and `roll_over` say which window it is written in.
"""

from ledger.core.rules.admission import (
    Crossing,
    Denial,
    admit,
    counted,
    crossing_detail,
    crossings,
    denial_figures,
    least,
    over_request_budget,
    reached,
    remaining,
)
from ledger.core.rules.carry_over import (
    adjust_window,
    begin_window,
    roll_over,
)
from ledger.core.rules.leases import (
    Effect,
    abandon,
    correct,
    due,
    end_hold,
    follow,
    observe,
    renew,
    reserve,
    settle,
)

__all__ = [
    "Crossing",
    "Denial",
    "Effect",
    "abandon",
    "adjust_window",
    "admit",
    "begin_window",
    "correct",
    "counted",
    "crossing_detail",
    "crossings",
    "denial_figures",
    "due",
    "end_hold",
    "follow",
    "least",
    "observe",
    "over_request_budget",
    "reached",
    "remaining",
    "renew",
    "reserve",
    "roll_over",
    "settle",
]
