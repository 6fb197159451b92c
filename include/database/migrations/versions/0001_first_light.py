"""First light: the tables of goals, tasks, leases, messages, model calls and verdicts."""

from pathlib import Path

from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Run the SQL file of the same name; there is no way back but a restored backup."""
    op.get_bind().exec_driver_sql((Path(__file__).parent.parent / "0001_first_light.sql").read_text().replace("%", "%%"))
