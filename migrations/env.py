"""The environment of alembic: it migrates on a given connection, or the store of LEDGER_URL."""

import os
from logging.config import fileConfig

from alembic import context
from alembic.util import CommandError
from sqlalchemy import Connection

from ledger.store import migrate, schema

config = context.config


def run(connection: Connection) -> None:
    """Run the migrations inside the transaction that is already open."""
    context.configure(
        connection=connection,
        target_metadata=schema.metadata,
        version_table=schema.VERSION_TABLE,
        include_name=migrate.is_ours,
    )
    context.run_migrations()


if context.is_offline_mode():
    raise CommandError(
        "a ledger cannot be migrated as an SQL script: its identity is made when it is created"
    )
if handed := config.attributes.get("connection"):
    run(handed)
else:
    if config.config_file_name is not None:
        fileConfig(config.config_file_name, disable_existing_loggers=False)
    url = os.environ.get("LEDGER_URL") or config.get_main_option("ledger_url")
    with migrate.transaction_at(str(url)) as connection:
        run(connection)
