"""Airlock in Airflow's UI, in a real browser, and the same by REST."""
