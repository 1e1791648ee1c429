# Commands for a developer; `just` alone lists them. `pip install -e '.[dev]'` brings just itself.

bin := ".venv/bin"

_list:
    @just --list

# A virtual environment with everything that the checks need.
setup:
    python3 -m venv .venv
    .venv/bin/pip install -q -e '.[dev]'

# What .ci/run checks, quick parts first; it adds a fresh copy and the older SQLAlchemy.
check: lint quick test

# Linters, types, import contracts, and the picture in docs/architecture.md.
lint:
    {{bin}}/ruff check .
    {{bin}}/ruff format --check .
    {{bin}}/mypy
    {{bin}}/lint-imports
    {{bin}}/python docs/draw_layers.py --check

# The pure core alone: seconds.
quick:
    {{bin}}/python -m pytest -q tests/unit

# All tests, or those that are named: just test tests/conformance -k sqlite
test *arguments:
    {{bin}}/python -m pytest {{arguments}}

# More histories, places and calls: minutes. `just sweep` tries every place: half an hour.
long:
    {{bin}}/python -m pytest -q -m long

sweep:
    {{bin}}/python -m pytest -q -m sweep

# All tests on PostgreSQL with stores in partitions. Left out are two files that compare a schema
# without any; tests/migration/test_partitions.py compares one that has them.
partitions *where:
    LEDGER_TEST_PARTITIONS=8 {{bin}}/python -m pytest -q {{where}} \
        -k "postgresql or roles or lost_connections or group_commit or pooler or copies or backups or secrets" \
        --ignore tests/migration/test_schema.py --ignore tests/migration/test_definitions.py

# Looks for files that a reader cannot take, until it is interrupted: just fuzz -max_total_time=600
fuzz *options:
    {{bin}}/python -m tests.fuzz {{options}}

# The page in a real browser (needs Debian's chromium).
browser:
    {{bin}}/python -m pytest -q -m browser

# Ratios to this machine's own floor; --help names the sections.
bench *arguments:
    {{bin}}/python -m benchmarks {{arguments}}
