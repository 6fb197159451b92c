"""Who only looks: a role for views, which reads every table but the keys and writes none."""

from pathlib import Path

from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Run the SQL file of the same name; there is no way back but a restored backup."""
    op.get_bind().exec_driver_sql((Path(__file__).parent.parent / "0004_who_only_looks.sql").read_text().replace("%", "%%"))
