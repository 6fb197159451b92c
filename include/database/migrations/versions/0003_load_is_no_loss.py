"""A load is no loss and no person: the minute without a watch counts only while Airflow keeps up, and a clear is told from a retry."""

from pathlib import Path

from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Run the SQL file of the same name; there is no way back but a restored backup."""
    op.get_bind().exec_driver_sql((Path(__file__).parent.parent / "0003_load_is_no_loss.sql").read_text().replace("%", "%%"))
