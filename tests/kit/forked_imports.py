"""What the parent of forked processes has imported: all that brokers and the offline model need."""

import anthropic
import psycopg_pool
import starlette.applications
import uvicorn

import include.broker.__main__
import include.offline.model
import tests.kit.forked

__all__ = ["anthropic", "include", "psycopg_pool", "starlette", "tests", "uvicorn"]
