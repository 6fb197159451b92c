"""Ways for a process to load less: modules that are loaded at first use, and optional packages that a library goes without."""

from __future__ import annotations

import contextlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Iterator, Sequence
from types import ModuleType


class _Deferred(importlib.abc.MetaPathFinder):
    """Finds the named modules, once each, with a loader that runs them at their first use."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = set(names)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Answer the import system: a lazy spec for a named module, None for every other."""
        if fullname not in self._names:
            return None
        self._names.discard(fullname)
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = importlib.util.LazyLoader(spec.loader)
        return spec


def defer(*names: str) -> None:
    """Have these modules load at their first use, not where a library imports them. Who uses one gets all of it, as ever.

    Args:
        names: full names, of modules that are not loaded yet. A library's ``from module import name`` counts as a use.
    """
    sys.meta_path.insert(0, _Deferred([name for name in names if name not in sys.modules]))


@contextlib.contextmanager
def without(*names: str) -> Iterator[None]:
    """Hide these packages while others are imported, which then do without them, as where they are not installed.

    Args:
        names: of packages that are optional to whoever is imported in the block. One that is loaded already stays visible.
    """
    hidden = [name for name in names if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type] # None there is what "not to be found" looks like
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]
