#!/usr/bin/env bash
# Double entries of single calls, beside an amount with two decimals.
# Guessed: 0.250004 USD against -0.25 USD is an error; a leg that is left out becomes exactly
#          what is missing.
# Seen:    no error; and the missing leg is rounded to the digits of the amount that has least:
#          0.000451 + 1.25 gives -1.25. With six digits in every leg both are exact. Nor is a total price kept:
#          300 TOK @@ 0.000451 USD weighs 0.0004509999999999999999999999999.
# Library: beancount 3.2.3
# Matters: books of calls below a cent lose up to half a cent in each transaction, unnoticed.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install -qq --no-compile --disable-pip-version-check beancount==3.2.3
timeout 120 venv/bin/python - <<'EOF'
import warnings

warnings.simplefilter("ignore")
from importlib.metadata import version

from decimal import Decimal

from beancount import loader
from beancount.core import convert

OPEN = """
2026-01-01 open Expenses:Model
2026-01-01 open Assets:Tokens
2026-01-01 open Liabilities:Provider
"""


def load(*legs):
    lines = "\n".join(f"  {leg}" for leg in legs)
    entries, errors, _ = loader.load_string(OPEN + '2026-01-02 * "call"\n' + lines + "\n")
    (made,) = [entry for entry in entries if hasattr(entry, "postings")]
    return made.postings, [error.message for error in errors]


print("beancount", version("beancount"))
_, coarse = load("Expenses:Model  0.250004 USD", "Liabilities:Provider  -0.25 USD")
_, fine = load("Expenses:Model  0.250004 USD", "Liabilities:Provider  -0.250000 USD")
print("0.250004 against -0.25:", coarse or "no error")
print("0.250004 against -0.250000:", fine)
filled = {}
for other in ("1.25", "1.250000"):
    postings, errors = load(
        "Expenses:Model  0.000451 USD", f"Expenses:Model  {other} USD", "Liabilities:Provider"
    )
    filled[other] = postings[-1].units.number
    print(f"0.000451 + {other}, third leg left out:", filled[other], errors or "no error")
    assert not errors
postings, errors = load("Assets:Tokens  300 TOK @@ 0.000451 USD", "Liabilities:Provider  -0.000451 USD")
weight = convert.get_weight(postings[0]).number
print("300 TOK @@ 0.000451 USD weighs", weight)
assert coarse == [] and len(fine) == 1
assert filled == {"1.25": Decimal("-1.25"), "1.250000": Decimal("-1.250451")}
assert not errors and weight != Decimal("0.000451") and abs(weight - Decimal("0.000451")) < Decimal("1E-27")
EOF
