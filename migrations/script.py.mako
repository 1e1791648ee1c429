"""${message}

Revision ID: ${up_revision}
Revises: ${down_revision | comma,n}
"""

from alembic import op
import sqlalchemy as sa
${imports if imports else ""}

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Move a store forward. Entries are never rewritten."""
    ${upgrades if upgrades else "pass"}


def downgrade() -> None:
    """Books are never moved backwards: restore a backup instead."""
    raise NotImplementedError
