"""housekeeping: every night, take away what has grown old."""

from __future__ import annotations

from airflow.sdk import DAG

from include.flow.steps.housekeep import HousekeepStep

_DOC = """### Housekeeping

Every night, of goal runs that have **ended** and of nothing else:

- events, messages and notices, once the run ended more than `AIRLOCK_KEEP_EVENTS_DAYS` ago (90);
- transcripts, questions, logs, hand-ins and bundles, after `AIRLOCK_KEEP_TRANSCRIPTS_DAYS` (30);
- the keys of attempts that have ended, at once.

**Money, decisions, verdicts, merges and the audit log are never pruned.** `./airlock prune` does the same by hand.
"""

with DAG(
    "housekeeping",
    dag_display_name="Housekeeping",
    description="Prunes old events, transcripts, logs and files of goal runs that have ended.",
    doc_md=_DOC,
    schedule="17 3 * * *",
    catchup=False,
    is_paused_upon_creation=False,
    max_active_runs=1,
    tags=["airlock"],
    default_args={"owner": "airlock"},
) as dag:
    HousekeepStep(task_id="housekeep", task_display_name="Prune")
