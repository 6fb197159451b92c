"""Where prices come from: our prices.yaml first, then genai-prices; the offline model is free."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from include.broker.models import Prices, Tier
from include.errors import ModelFailed

_OVERRIDES = Path(__file__).parent / "prices.yaml"
OFFLINE = Prices(table="offline", tiers=(Tier(input=0, output=0, cache_read=0, cache_write=0, cache_write_1h=0),))


@cache
def prices(model: str, offline: bool = False) -> Prices:
    """Find the prices of a model.

    Args:
        model: its id.
        offline: True: the offline model answers, which costs nothing.

    Raises:
        ModelFailed: (bad_request) nobody knows this model's price.
    """
    return OFFLINE if offline else _overridden(model) or _published(model)


def _overridden(model: str) -> Prices | None:
    text = _OVERRIDES.read_bytes()
    entry = (yaml.safe_load(text) or {}).get(model)
    if entry is None:
        return None
    return Prices(table=f"prices.yaml {hashlib.sha256(text).hexdigest()[:12]}", tiers=tuple(Tier.model_validate(tier) for tier in entry))


def _published(model: str) -> Prices:
    import genai_prices  # 0.7 s: only where a price is asked for

    try:
        found = genai_prices.calc_price(genai_prices.Usage(input_tokens=1), model_ref=model, provider_id="anthropic").model_price
    except LookupError:
        raise ModelFailed("bad_request", f"The price of model {model!r} is not known. Add it to include/broker/prices.yaml, or choose "
                          "another model for this agent.") from None  # fmt: skip
    names = {"input": "input_mtok", "output": "output_mtok", "cache_read": "cache_read_mtok",
             "cache_write": "cache_write_mtok", "cache_write_1h": "cache_write_1h_mtok"}  # fmt: skip
    columns = {ours: getattr(found, theirs, None) for ours, theirs in names.items()}
    starts = sorted({0} | {tier.start for price in columns.values() for tier in getattr(price, "tiers", [])})
    tiers = tuple(_tier(columns, start) for start in starts)
    return Prices(table=f"genai-prices {genai_prices.__version__}", tiers=tiers)


def _tier(columns: dict[str, Any], start: int) -> Tier:
    at = {name: _price_at(price, start) for name, price in columns.items()}
    plain = at["input"]
    # Where the table has no price of its own for cached tokens: never cheaper than what it says for plain input.
    return Tier(above=start, **{name: plain if price is None else price for name, price in at.items()})


def _price_at(price: Any, start: int) -> Any:
    if price is None or not hasattr(price, "tiers"):
        return price
    return [price.base, *(tier.price for tier in sorted(price.tiers, key=lambda tier: tier.start) if tier.start <= start)][-1]
