"""Whether a process answers. Each check is one quick question, and False when it does not answer."""

from __future__ import annotations

import http.client
import json
import socket
from typing import Any

import psycopg

from include.settings import Settings

_ours: set[str] = set()
"""API servers that knew our password once."""


def tcp(port: int) -> bool:
    """Look whether somebody listens on this port of loopback."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def postgres(settings: Settings) -> bool:
    """Look whether PostgreSQL lets its superuser in."""
    try:
        psycopg.connect(admin_dsn(settings), connect_timeout=2).close()
    except psycopg.OperationalError:
        return False
    return True


def admin_dsn(settings: Settings) -> str:
    """Make the address of our own server as its superuser."""
    return f"postgresql://postgres:{settings.pg_password}@{settings.pg_host}:{settings.pg_port}/postgres"


def valkey(settings: Settings) -> bool:
    """Look whether the stream server lets the broker in."""
    try:
        with socket.create_connection((settings.valkey_host, settings.valkey_port), timeout=1) as connection:
            connection.sendall(f"AUTH broker {settings.valkey_password}\r\nPING\r\n".encode())
            return b"+OK" in connection.recv(64)
    except OSError:
        return False


def listens(settings: Settings, role: str) -> bool:
    """Look whether a process of this role has its connection to PostgreSQL open, waiting for work."""
    try:
        with psycopg.connect(settings.dsn("cli"), connect_timeout=2) as connection:
            row = connection.execute("SELECT FROM pg_stat_activity WHERE usename = %s LIMIT 1", (f"airlock_{role}",)).fetchone()
    except psycopg.OperationalError:
        return False
    return row is not None


def warden(settings: Settings) -> bool:
    """Look whether the warden answers the Docker Engine API's ping."""
    connection = http.client.HTTPConnection("warden", timeout=2)
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.settimeout(2)
    try:
        connection.sock.connect(str(settings.warden_socket))
        connection.request("GET", "/_ping")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def airflow(settings: Settings) -> bool:
    """Look whether all of Airflow's parts say that they are healthy, and whether it is our Airflow: it knows our password."""
    login = {"username": "airlock", "password": settings.api_password}
    try:
        _, parts = _ask(settings, "GET", "/api/v2/monitor/health")
        if settings.api_url not in _ours and _ask(settings, "POST", "/auth/token", login)[0] != 201:
            return False
    except (OSError, http.client.HTTPException, ValueError):
        return False
    _ours.add(settings.api_url)
    return all((parts.get(part) or {}).get("status") == "healthy" for part in ("metadatabase", "scheduler", "triggerer", "dag_processor"))


def _ask(settings: Settings, method: str, path: str, body: dict[str, str] | None = None) -> tuple[int, dict[str, Any]]:
    """Ask our API server by the standard library's client: the supervisor would load a second of others for it."""
    connection = http.client.HTTPConnection("127.0.0.1", settings.api_port, timeout=3)
    try:
        connection.request(method, path, json.dumps(body) if body else None, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        found: dict[str, Any] = json.loads(answer.read())
        return answer.status, found
    finally:
        connection.close()
