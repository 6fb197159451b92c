"""The Messages API through the anthropic SDK: counted attempts, and every failure with a kind and a sentence to act on."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from include.broker.models import MOST_TOKENS, Reply
from include.errors import ModelFailed, ModelUnavailable
from include.messages import strict_json
from include.settings import Settings

MAX_WAIT_S = 30.0
"""Longest wait between two attempts, whatever ``retry-after`` asks for."""
COUNT_TIMEOUT_S = 10.0
SLACK_S = 2.0
"""So long after a timeout of the SDK, which looks at each read alone, the whole of a call is over: an endpoint may send a byte a minute."""
_NEVER_SENT = ("ConnectError", "ConnectTimeout", "UnsupportedProtocol", "LocalProtocolError", "PoolTimeout")


class Outcome(NamedTuple):
    """What became of a call. ``maybe_billed``: it failed, but the endpoint may have done (and charged) the work."""

    reply: Reply | None
    failure: ModelFailed | None
    attempts: int
    maybe_billed: bool = False


class Endpoint:
    """One agent's access to its model.

    Args:
        agent: whose key file is read, at the first call.
        settings: address, timeout, attempts; ``offline`` chooses the local offline model.
    """

    def __init__(self, agent: str, settings: Settings) -> None:
        self._agent = agent
        self._settings = settings
        self._client: Any = None
        self._key = ""

    async def close(self) -> None:
        """Give the connections back."""
        if self._client is not None:
            await self._client.close()

    async def warm(self) -> None:
        """Import the SDK (seconds of CPU) beside the event loop, before the first call needs it."""
        await asyncio.to_thread(__import__, "anthropic")

    async def count(self, body: dict[str, Any]) -> int | None:
        """Ask the endpoint how many input tokens a body has; None: it does not say, or what cannot be."""
        wanted = {name: body[name] for name in ("model", "messages", "system", "tools", "output_config") if name in body}
        try:
            client = await self._ready()
            async with asyncio.timeout(COUNT_TIMEOUT_S + SLACK_S):
                said = (await client.messages.count_tokens(**wanted, timeout=COUNT_TIMEOUT_S)).input_tokens
            return said if type(said) is int and 0 <= said <= MOST_TOKENS else None
        except Exception:  # the reservation then takes one token a byte, which is never too little
            return None

    async def create(self, body: dict[str, Any]) -> Outcome:
        """Call the model: again after 429, 5xx and refused connections, never again after a call that may have been done."""
        attempt = 0
        while True:
            attempt += 1
            outcome, wait = await self._once(body, attempt)
            if wait is None or attempt >= self._settings.model_attempts:
                return outcome
            await asyncio.sleep(wait)

    async def _once(self, body: dict[str, Any], attempt: int) -> tuple[Outcome, float | None]:
        """Make one HTTP attempt; returns the outcome, and after how many seconds it is worth another one (None: it is not)."""
        try:
            client = await self._ready()
            timeout = float(self._settings.model_timeout_s)
            async with asyncio.timeout(timeout + SLACK_S):
                content = await (await client.messages.with_raw_response.create(**body, timeout=timeout)).read()
            return Outcome(_read(content), None, attempt), None
        except ModelFailed as failure:
            return Outcome(None, failure, attempt, failure.kind == "malformed"), None
        except Exception as error:
            why, billed = self._classify(error)
            return Outcome(None, why, attempt, billed), None if billed else _wait(error, why, attempt)

    async def _ready(self) -> Any:
        if self._client is None:
            await self.warm()
            import anthropic

            settings = self._settings
            self._key = "offline" if settings.offline else _read_key(settings.keys_dir / f"{self._agent}.key")
            base = f"http://127.0.0.1:{settings.offline_port}" if settings.offline else settings.anthropic_base_url or None
            self._client = anthropic.AsyncAnthropic(api_key=self._key, base_url=base, max_retries=0)
        return self._client

    def _classify(self, error: Exception) -> tuple[ModelFailed, bool]:
        import anthropic

        where = str(self._client.base_url) if self._client else "the model's endpoint"
        if isinstance(error, TimeoutError) or (isinstance(error, anthropic.APITimeoutError) and not _never_sent(error)):
            return ModelUnavailable("timeout", f"{where} gave no answer within {self._settings.model_timeout_s} s."), True
        if isinstance(error, anthropic.APIConnectionError) or type(error).__module__.startswith("httpx2"):
            sent = not _never_sent(error)
            what = f"{'broke off' if sent else 'does not answer'} ({self._hide(error.__cause__ or error)})"
            return ModelUnavailable("down", f"{where} {what}. Check the network and ANTHROPIC_BASE_URL, then clear the task's steps."), sent
        if isinstance(error, anthropic.APIStatusError):
            return self._by_status(error.status_code, self._hide(error.message), where), False
        return ModelFailed("malformed", f"{where} gave an answer that cannot be read ({self._hide(error)})."), True

    def _by_status(self, status: int, said: str, where: str) -> ModelFailed:
        if status in (401, 403):
            return ModelFailed("unauthorized", f"{where} refuses the key of agent {self._agent} (HTTP {status}: {said}). "
                               "Set a valid ANTHROPIC_API_KEY and run `./airlock up` again.")  # fmt: skip
        if status == 429:
            return ModelUnavailable("rate_limited", f"{where} limits the rate of agent {self._agent} (HTTP 429: {said}). Try again later.")
        if status in (503, 529):
            return ModelUnavailable("overloaded", f"{where} is overloaded (HTTP {status}: {said}). Try again later.")
        if status >= 500:
            return ModelUnavailable("down", f"{where} has an error of its own (HTTP {status}: {said}). Try again later.")
        return ModelFailed("bad_request", f"{where} refuses the request (HTTP {status}: {said}). Check the agent's model and the plan.")

    def _hide(self, text: object) -> str:
        said = " ".join(str(text).split())
        return (said.replace(self._key, "***") if self._key else said)[:300]


def _read_key(path: Path) -> str:
    try:
        key = path.read_text().strip()
    except OSError:
        key = ""
    if not key:
        raise ModelFailed("unauthorized", f"There is no model key in {path}. Set ANTHROPIC_API_KEY and run `./airlock up` again.")
    return key


def _read(content: bytes) -> Reply:
    try:
        return Reply.model_validate(strict_json.storable(strict_json.parse(content)))
    except (strict_json.NotStrict, ValidationError) as error:
        said = " ".join(str(error).split())[:200]
        raise ModelFailed("malformed", f"The model's endpoint gave an answer that is not one of the Messages API ({said}).") from None


def _never_sent(error: Exception) -> bool:
    return type(error.__cause__).__name__ in _NEVER_SENT


def _wait(error: Exception, failure: ModelFailed, attempt: int) -> float | None:
    headers = getattr(getattr(error, "response", None), "headers", {})
    told = headers.get("x-should-retry")
    if told == "false" or (told != "true" and not isinstance(failure, ModelUnavailable)):
        return None
    try:
        asked: float = float(headers["retry-after"])
        return min(MAX_WAIT_S, max(0.0, asked))
    except (KeyError, ValueError):
        backoff: float = min(8.0, 0.5 * 2 ** (attempt - 1))
        return backoff * random.uniform(0.75, 1.25)
