"""start: run the attempt's sandbox on its node, detached. A DockerOperator whose engine is the warden (docs/architecture.md)."""

from __future__ import annotations

import time
from typing import Any

import requests
from airflow.providers.docker.operators.docker import DockerOperator
from docker.errors import APIError

from include.database.unit_of_work import transaction
from include.errors import SandboxFailed, Unavailable
from include.fleet import service as fleet
from include.flow.steps.base import RETRIES
from include.flow.taken import Stopped, leave, settle, stop
from include.flow.told import Told
from include.sandbox import service

_PATIENCE_S = 20.0


class StartStep(Told, DockerOperator):
    """Creates or adopts the sandbox of the task's current attempt, starts it, and returns at once.

    What runs, its image, mounts and limits come from the lease and the warden's profile table; nothing of this operator's arguments does.
    If the lease is over, or the sandbox has ended, it returns as well: the next step, lease, decides what that means.

    Args:
        task_key: key of the plan's task.
    """

    template_fields = ()  # text is data: nothing is rendered

    def __init__(self, *, task_id: str, task_key: str, **kw: Any) -> None:
        super().__init__(
            task_id=task_id, image="airlock", api_version="1.41", docker_conn_id=None, mount_tmp_dir=False, auto_remove="never",
            do_xcom_push=False, retrieve_output=False, **{**RETRIES, **kw},
        )  # fmt: skip
        self.task_key = task_key

    def execute(self, context: Any) -> None:
        """Find the attempt, and let the stock operator begin."""
        ti = context["ti"]
        with transaction("airflow") as connection:
            found = service.sandbox_to_start(connection, ti.dag_id, ti.run_id, self.task_key)
        if found is None:
            self.log.info("%s has no live lease any more; the next step decides.", self.task_key)
            return
        self.container_name, epoch = found.sandbox, found.epoch
        self.docker_url = fleet.address_of(found.node)
        try:
            self._with_patience(lambda: super(StartStep, self).execute(context))
            settle(ti, self.log, epoch)  # marked in this moment: Airflow's word to stop would come too late
        except Stopped:
            leave(ti, self.log, epoch)

    def _run_image_with_mounts(self, target_mounts: Any, add_tmp_variable: bool) -> None:  # noqa: ARG002 - the warden knows the mounts
        """Create or adopt, start, and do not wait."""
        try:
            self._create_or_adopt()
            self.cli.start(self.container_name)
            self.log.info("The sandbox %s runs.", self.container_name)
        except APIError as error:
            if error.status_code not in (403, 404):
                raise
            self.log.info("%s is not to be started any more (%s); the next step decides.", self.container_name, error.explanation)

    def _create_or_adopt(self) -> None:
        try:
            self.cli.create_container(image=self.image, name=self.container_name)
        except APIError as error:
            if error.status_code != 409:
                raise
            self.log.info("The sandbox %s is there already: adopted.", self.container_name)

    def _with_patience(self, act: Any) -> None:
        """Bear a warden that is being restarted for 20 s."""
        end = time.monotonic() + _PATIENCE_S
        while True:
            try:
                act()
                return
            except (requests.exceptions.RequestException, APIError) as error:
                self._give_up(error, end)
            time.sleep(0.5)

    def _give_up(self, error: Exception, end: float) -> None:
        if isinstance(error, APIError) and error.status_code != 503:
            raise SandboxFailed(f"The warden could not start {self.container_name}: {error.explanation}") from error
        if time.monotonic() > end:
            raise Unavailable(f"The warden did not answer for {_PATIENCE_S:g} s ({error}). Look at `./airlock status`.") from error

    def on_kill(self) -> None:
        """Never the stock operator's, which stops the container: only the warden kills, and only what a revoke or a term has ended."""
        stop()
