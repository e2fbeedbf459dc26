"""Brings the tables of a metadata store up to the revision of this code; Alembic does the work.

Runs inside the caller's transaction, so a crash leaves the former revision whole. SQLite's file lock, or an
advisory lock on PostgreSQL, lets one server migrate while others that start at the same time wait.
"""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import Connection, text

from streamlake.core.errors import Invalid

ADVISORY_LOCK = 0x53_4C_4D_44  # "SLMD"
TIMEOUT_S = 60  # for each statement, and for another server that migrates; PostgreSQL only


def upgrade(connection: Connection) -> None:
    """Apply the revisions that are missing. Invalid if a newer StreamLake wrote the store."""
    if connection.dialect.name == "postgresql":
        for limit in ("lock_timeout", "statement_timeout", "idle_in_transaction_session_timeout"):
            connection.execute(text(f"SET LOCAL {limit} = '{TIMEOUT_S}s'"))
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": ADVISORY_LOCK})
    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    try:
        command.upgrade(config, "head")
    except CommandError as error:
        raise Invalid(f"the metadata store was written by a newer StreamLake, upgrade this one: {error}") from error
