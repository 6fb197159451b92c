"""land: bring the finished goal branch into the base branch, as one merge whose exact tree was tested."""

from __future__ import annotations

from typing import Any

from include.flow.landing import land
from include.flow.steps.base import Step


class LandStep(Step):
    """Lands the goal once."""

    def advance(self, context: Any) -> Any:
        """Go on from what is stored."""
        return land(self, context, whole=True)
