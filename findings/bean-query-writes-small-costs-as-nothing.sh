#!/usr/bin/env bash
# Books of ten charges of 12.50 USD and one call of 0.000451 USD, asked by bean-query for CSV.
# Guessed: CSV has the amounts as they are in the books, 0.000451 and in all 125.000451, as the same
#          query has of two charges and two such calls.
# Seen:    an amount with its currency is rounded to as many decimals as most amounts in the books
#          have: "0.00 USD", and in all "125.00 USD"; with two and two it is 0.000451. The column
#          number alone is exact in both.
# Library: beancount 3.2.3, beanquery 0.2.0
# Matters: the spend of cheap models disappears from reports by bean-query as soon as the books also
#          have ordinary charges: select number, or sum(number).
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install -qq --no-compile --disable-pip-version-check beancount==3.2.3 \
    beanquery==0.2.0
timeout 120 venv/bin/python - <<'PROGRAM'
import warnings

warnings.simplefilter("ignore")
from importlib.metadata import version

import csv
import pathlib
import subprocess


def charge(amount):
    return f'2026-01-02 * "x"\n  Expenses:Model  {amount} USD\n  Liabilities:Provider  -{amount} USD\n'


OPEN = "2026-01-01 open Expenses:Model\n2026-01-01 open Liabilities:Provider\n"
BOOKS = {
    "two and two": OPEN + charge("12.50") * 2 + charge("0.000451") * 2,
    "ten and one": OPEN + charge("12.50") * 10 + charge("0.000451"),
}
WHERE = "WHERE account = 'Expenses:Model'"
QUERIES = [
    f"SELECT DISTINCT position, number {WHERE} AND number < 1",
    f"SELECT sum(position), sum(number) {WHERE}",
]
for name in ("beancount", "beanquery"):
    print(name, version(name))
seen = {}
for name, text in BOOKS.items():
    pathlib.Path("books.beancount").write_text(text)
    seen[name] = []
    for query in QUERIES:
        done = subprocess.run(
            ["venv/bin/bean-query", "--format", "csv", "books.beancount", query],
            capture_output=True,
            text=True,
            check=True,
        )
        _, row = csv.reader(done.stdout.strip().splitlines())
        seen[name].append([cell.strip() for cell in row])
    print(f"{name}: smallest {seen[name][0]}, in all {seen[name][1]}")
assert seen == {
    "two and two": [["0.000451 USD", "0.000451"], ["25.000902 USD", "25.000902"]],
    "ten and one": [["0.00 USD", "0.000451"], ["125.00 USD", "125.000451"]],
}, seen
PROGRAM
