"""What a drill does as a person at the command line would. The only module of the drills that imports the command line."""

from __future__ import annotations

from include.cli.demo import GOAL, make_sample
from include.cli.doctor import delete_home, leftovers
from include.cli.rest import Airflow
from include.cli.submit import dag_run_id, register, request, submit

__all__ = ["GOAL", "Airflow", "dag_run_id", "delete_home", "leftovers", "make_sample", "register", "request", "submit"]
