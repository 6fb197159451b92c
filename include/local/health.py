"""Whether a process answers. Each check is one quick question, and False when it does not answer."""

from __future__ import annotations

import socket

import httpx
import psycopg

from include.settings import Settings

_ours: set[str] = set()
"""API servers that knew our password once."""


def tcp(port: int) -> bool:
    """Somebody listens on this port of loopback."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def postgres(settings: Settings) -> bool:
    """PostgreSQL lets its superuser in."""
    try:
        psycopg.connect(admin_dsn(settings), connect_timeout=2).close()
    except psycopg.OperationalError:
        return False
    return True


def admin_dsn(settings: Settings) -> str:
    """The address of our own server as its superuser."""
    return f"postgresql://postgres:{settings.pg_password}@{settings.pg_host}:{settings.pg_port}/postgres"


def valkey(settings: Settings) -> bool:
    """The stream server lets the broker in."""
    try:
        with socket.create_connection((settings.valkey_host, settings.valkey_port), timeout=1) as connection:
            connection.sendall(f"AUTH broker {settings.valkey_password}\r\nPING\r\n".encode())
            return b"+OK" in connection.recv(64)
    except OSError:
        return False


def listens(settings: Settings, role: str) -> bool:
    """A process of this role has its connection to PostgreSQL open, waiting for work."""
    try:
        with psycopg.connect(settings.dsn("cli"), connect_timeout=2) as connection:
            row = connection.execute("SELECT FROM pg_stat_activity WHERE usename = %s LIMIT 1", (f"airlock_{role}",)).fetchone()
    except psycopg.OperationalError:
        return False
    return row is not None


def warden(settings: Settings) -> bool:
    """The warden answers the Docker Engine API's ping."""
    try:
        transport = httpx.HTTPTransport(uds=str(settings.warden_socket), verify=False)
        with httpx.Client(transport=transport, timeout=2, verify=False) as client:
            return client.get("http://warden/_ping").status_code == 200
    except httpx.HTTPError:
        return False


def airflow(settings: Settings) -> bool:
    """API server, scheduler, triggerer and DAG processor all say that they are healthy; and it is ours, for it knows our password."""
    login = {"username": "airlock", "password": settings.api_password}
    try:
        # Plain HTTP on loopback: a context of certificates would cost 40 ms a question.
        with httpx.Client(base_url=settings.api_url, timeout=3, trust_env=False, verify=False) as client:
            parts = client.get("/api/v2/monitor/health").json()
            if settings.api_url not in _ours and client.post("/auth/token", json=login).status_code != 201:
                return False
    except (httpx.HTTPError, ValueError):
        return False
    _ours.add(settings.api_url)
    return all((parts.get(part) or {}).get("status") == "healthy" for part in ("metadatabase", "scheduler", "triggerer", "dag_processor"))
