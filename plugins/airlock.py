"""Mounts Airlock's routes in Airflow's API server."""

from __future__ import annotations

from airflow.plugins_manager import AirflowPlugin

from include.flow.api import BodyLimit, LazyApp


class AirlockPlugin(AirflowPlugin):
    """The door at /airlock, and the limit on the size of bodies."""

    name = "airlock"
    fastapi_apps = [{"app": LazyApp(), "url_prefix": "/airlock", "name": "Airlock"}]  # noqa: RUF012
    fastapi_root_middlewares = [{"middleware": BodyLimit, "args": [], "kwargs": {}, "name": "Body limit"}]  # noqa: RUF012
