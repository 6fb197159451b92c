"""The processes of design §3 as data: how each is started, what it waits for, when it is ready."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass, field

from include.local import health, keys, postgres, valkey
from include.local.shutdown import revoke_what_is_at_work
from include.settings import Settings


def _always() -> bool:
    return True


def _nothing() -> None:
    return None


@dataclass(frozen=True)
class Supervised:
    """One process under the supervisor."""

    name: str
    command: tuple[str, ...]
    needs: tuple[str, ...] = ()  # names that must be ready before it starts
    ready: Callable[[], bool] = _always
    address: str = ""
    early: bool = False  # its start is long and needs nobody: it begins before all others, wherever it stands in the list
    once: bool = False  # a step: it must end with 0, and then counts as ready
    stop_signal: int = signal.SIGTERM
    stop_s: float = 10.0  # seconds until it is killed
    before_start: Callable[[], None] = field(default=_nothing)
    after_stop: Callable[[], None] = field(default=_nothing)
    nursery: str = ""  # name of the nursery that forks it; its command is then `python -m MODULE …`
    is_nursery: bool = False  # it forks others: ready is what it says on its line


def _python(module: str, *arguments: str) -> tuple[str, ...]:
    return (sys.executable, "-m", module, *arguments)


NURSERY, GATE_NURSERY = "nursery", "gate-nursery"
NURSLINGS = (
    "include.local.prepare",
    "include.offline.model",
    "include.sandbox.warden",
    "include.broker.__main__",
    "uvicorn.protocols.http.auto",
    "uvicorn.loops.auto",
)


def _nurseries() -> list[Supervised]:
    """Make the two nurseries: one for what most of ours share, and one, forked by it, that has Great Expectations loaded beside.

    The relay is in neither: bytes of a worker's choice reach it, so it shares no memory image with whoever holds a key.
    """
    module = "include.local.nursery"
    return [
        Supervised(NURSERY, _python(module, *NURSLINGS), is_nursery=True),
        Supervised(GATE_NURSERY, _python(module, "include.gate.__main__"), (NURSERY,), nursery=NURSERY, is_nursery=True),
    ]


def _postgres(settings: Settings) -> Supervised:
    binaries, data = postgres.find_binaries(settings.pg_bin), settings.home / "postgres"

    def before() -> None:
        postgres.initialise(binaries, data, settings.pg_password)

    # A stop by SIGINT is PostgreSQL's fast shutdown.
    return Supervised(
        "postgres",
        tuple(postgres.command(binaries, data, settings.pg_port)),
        ready=lambda: health.postgres(settings),
        address=f"127.0.0.1:{settings.pg_port}",
        stop_signal=signal.SIGINT,
        stop_s=20,
        before_start=before,
    )


def _valkey(settings: Settings) -> Supervised:
    data, acl = settings.home / "valkey", settings.home / "valkey" / "users.acl"

    def before() -> None:
        data.mkdir(exist_ok=True, mode=0o700)
        valkey.write_acl(acl, settings.valkey_password)

    return Supervised(
        "valkey",
        tuple(valkey.command(valkey.find_binary(settings.valkey_bin), data, settings.valkey_port, acl)),
        ready=lambda: health.valkey(settings),
        address=f"127.0.0.1:{settings.valkey_port}",
        before_start=before,
    )


def _servers(settings: Settings) -> list[Supervised]:
    servers = []
    if settings.pg_host == "127.0.0.1":
        servers.append(_postgres(settings))
    if settings.valkey_host == "127.0.0.1":
        servers.append(_valkey(settings))
    return servers


def _model(settings: Settings) -> list[Supervised]:
    if not settings.offline:
        return []
    folders = filter(None, settings.playbooks.split(":"))  # looked through before our own
    command = _python("include.offline.model", "--port", str(settings.offline_port), "--playbooks", *folders)
    return [
        Supervised(
            "offline-model",
            command,
            (NURSERY,),
            ready=lambda: health.tcp(settings.offline_port),
            address=f"127.0.0.1:{settings.offline_port}",
            nursery=NURSERY,
        )
    ]


def _brokers(settings: Settings) -> list[Supervised]:
    agents = sorted({keys.DEFAULT_AGENT, *(() if settings.offline else keys.holders(settings.keys_dir))})
    needs = (NURSERY, "prepare", *({"valkey"} & {server.name for server in _servers(settings)}))
    command = _python("include.broker", "--agent")
    return [
        Supervised(f"broker-{agent}", (*command, agent), needs, ready=lambda: health.listens(settings, "broker"), nursery=NURSERY)
        for agent in agents
    ]


def default_processes(settings: Settings) -> list[Supervised]:
    """List everything that runs, in the order of starting. Stopping goes the other way round."""
    servers = _servers(settings)
    own = {server.name for server in servers}
    prepare = Supervised("prepare", _python("include.local.prepare"), (NURSERY, *(own & {"postgres"})), once=True, nursery=NURSERY)
    control = settings.run_dir / "relay-control.sock"
    image = [] if settings.engine == "bubblewrap" else [Supervised("image", _python("include.local.image"), once=True)]
    relay = Supervised(
        "relay",
        _python("include.sandbox.relay_start"),
        tuple(own & {"valkey"}),
        ready=control.exists,
        before_start=lambda: control.unlink(missing_ok=True),
    )
    warden = Supervised(
        "warden",
        _python("include.sandbox.warden"),
        (NURSERY, "prepare", "relay", *(step.name for step in image)),
        ready=lambda: health.warden(settings),
        address=str(settings.warden_socket),
        nursery=NURSERY,
    )
    gatekeeper = Supervised(
        "gatekeeper",
        _python("include.gate"),
        (GATE_NURSERY, "prepare"),
        ready=lambda: health.listens(settings, "gatekeeper"),
        nursery=GATE_NURSERY,
    )
    airflow = Supervised(
        "airflow",
        _python("include.local.airflow"),
        early=True,  # it imports for seconds, and then waits for its database itself
        ready=lambda: health.airflow(settings),
        address=settings.api_url,
        stop_s=25,
        after_stop=lambda: revoke_what_is_at_work(settings),
    )
    ours = [*image, prepare, *_model(settings), relay, warden, *_brokers(settings), gatekeeper]
    return [*_nurseries(), *servers, *ours, airflow]
