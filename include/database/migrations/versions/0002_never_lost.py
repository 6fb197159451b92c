"""Never lost, never twice: beginnings of states, the one judgement of leases, pulses, notices, the audit log, pruning."""

from pathlib import Path

from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Run the SQL file of the same name; there is no way back but a restored backup."""
    op.get_bind().exec_driver_sql((Path(__file__).parent.parent / "0002_never_lost.sql").read_text().replace("%", "%%"))
