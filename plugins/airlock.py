"""Mounts Airlock's routes in Airflow's API server, and hears there what people mark."""

from __future__ import annotations

from airflow.plugins_manager import AirflowPlugin

from include.flow import listener
from include.flow.api import BodyLimit, LazyApp


class AirlockPlugin(AirflowPlugin):
    """The door at /airlock, the limit on the size of bodies, and the listener for marks."""

    name = "airlock"
    fastapi_apps = [{"app": LazyApp(), "url_prefix": "/airlock", "name": "Airlock"}]  # noqa: RUF012
    fastapi_root_middlewares = [{"middleware": BodyLimit, "args": [], "kwargs": {}, "name": "Body limit"}]  # noqa: RUF012
    listeners = [listener]  # noqa: RUF012
