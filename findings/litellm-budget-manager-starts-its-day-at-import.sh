#!/usr/bin/env bash
# BudgetManager with the local file: a daily budget, two objects, two projects, a later day.
# Guessed: a period starts when its budget is created; the cost is 0 again by itself when it
#          is over; what two objects record adds up; a project sees its own users only.
# Seen:    the period starts when litellm was imported, so that a program that has run for a day
#          starts anew with its first check; get_current_cost() keeps the old cost until
#          update_budget_all_users(); the object that writes last wins, and 2.50 of 7.50 USD
#          are gone; every project in a folder has the same users.
# Library: litellm 1.110.2
# Matters: a daily limit is granted twice, kept too long, or loses what others have spent.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install -qq --no-compile --disable-pip-version-check litellm==1.110.2 \
    openai==3.57.0 \
    httpx==0.28.1 \
    httpx2==2.16.2 \
    pydantic==2.14.4 \
    tiktoken==0.14.0
LITELLM_LOCAL_MODEL_COST_MAP=True timeout 120 venv/bin/python - <<'EOF'
import warnings

warnings.simplefilter("ignore")
from importlib.metadata import version

import threading
import time
from unittest import mock

import litellm
from litellm import BudgetManager, ModelResponse, Usage

HOUR = 3600


def spend(manager):
    made = ModelResponse(model="gpt-4o")
    made.usage = Usage(prompt_tokens=1_000_000, completion_tokens=0, total_tokens=1_000_000)
    manager.update_cost("user", made)
    for thread in threading.enumerate():  # it writes its file in a thread
        if thread is not threading.current_thread() and not thread.daemon:
            thread.join(5)


def at(moment):
    return mock.patch("time.time", lambda: moment)


imported = time.time()
print("litellm", version("litellm"))

# A budget that is created 23 hours after the import, and looked at two hours later.
first = BudgetManager(project_name="one", client_type="local")
with at(imported + 23 * HOUR):
    first.create_budget(total_budget=10, user="user", duration="daily")
    spend(first)
with at(imported + 25 * HOUR):
    first.update_budget_all_users()
    early = first.get_current_cost("user")
print("spent 2.5, two hours later:", early)

# The same the other way round: three days later, and nobody called update_budget_all_users().
spend(first)
with at(imported + 100 * HOUR):
    late = first.get_current_cost("user")
    first.update_budget_all_users()
    checked = first.get_current_cost("user")
print("spent 2.5, three days later:", late, "and when told to look:", checked)

# Two objects, three times 2.5 USD.
spend(first)
second = BudgetManager(project_name="two", client_type="local")
users = list(second.get_users())
spend(first)
spend(second)
third = BudgetManager(project_name="one", client_type="local")
kept = third.get_current_cost("user")
print("another project's users:", users)
print("spent 7.5 through two objects, kept:", kept)
assert early == 0
assert (late, checked) == (2.5, 0)
assert users == ["user"]
assert kept == 5.0
EOF
