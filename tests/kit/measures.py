"""What the house's tests measure: pure functions over parsed code and SQL, so that each can be shown a guilty one."""

from __future__ import annotations

import ast
import contextlib
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from importlib import import_module
from typing import NamedTuple

Parsed = Mapping[str, ast.Module]
"""Modules by their dotted names."""
_Function = ast.FunctionDef | ast.AsyncFunctionDef
_WRITES = re.compile(r"\b(?:INSERT\s+INTO|MERGE\s+INTO|DELETE\s+FROM|TRUNCATE)\s+([a-z_]+)|(?<!FOR )(?<!KEY )(?<!DO )\bUPDATE\s+([a-z_]+)")


class Function(NamedTuple):
    """One function or method of a module."""

    name: str
    parameters: int
    lines: int


def subscripts(tree: ast.AST) -> int:
    """Count the places that read or write a dict by a constant name: ``row["state"]``."""
    return sum(
        isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant) and isinstance(node.slice.value, str)
        for node in ast.walk(tree)
    )


def functions(tree: ast.AST) -> Iterator[Function]:
    """Measure every function: parameters without self, ``*args`` and ``**kw`` as one each; lines from ``def`` to the last one."""
    for node in ast.walk(tree):
        if isinstance(node, _Function):
            given = node.args
            names = [argument.arg for argument in (*given.posonlyargs, *given.args, *given.kwonlyargs)]
            count = len(names) - (names[:1] in (["self"], ["cls"])) + bool(given.vararg) + bool(given.kwarg)
            yield Function(node.name, count, (node.end_lineno or node.lineno) - node.lineno + 1)


def written(sql: str) -> set[str]:
    """Name the tables that some SQL inserts into, updates or deletes from."""
    return {name for found in _WRITES.findall(sql) for name in found if name}


def strings(tree: ast.AST) -> str:
    """Join all that stands in a module's strings, its SQL among it."""
    return "\n".join(node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str))


def unused(modules: Parsed) -> set[str]:
    """Find public functions and methods whose name stands nowhere but in their own definition.

    What a decorator of others registers (``@app.command()``, ``@hookimpl``) is used by that, and so is what pytest calls by its name. A
    name is all that is looked at, so that two functions of one name hide each other; what is found is unused for certain.
    """
    named = Counter[str]()
    for tree in modules.values():
        named.update(_names(tree))
    return {
        f"{module}.{name}"
        for module, tree in modules.items()
        for name, node in _defined(tree)
        if named[node.name] <= Counter(_names(node))[node.name]
    }


def _defined(tree: ast.Module) -> Iterator[tuple[str, _Function]]:
    """The public functions of a module, and the public methods of its classes."""
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    foreign = set(_foreign(tree)) - {"contextmanager", "asynccontextmanager", "cache", "lru_cache", "cached_property"}
    for prefix, body in (("", tree.body), *((f"{node.name}.", node.body) for node in classes)):
        for node in body:
            registered = any(_registers(decorator, foreign) for decorator in node.decorator_list) if isinstance(node, _Function) else True
            if isinstance(node, _Function) and not registered and not node.name.startswith(("_", "pytest_")):
                yield f"{prefix}{node.name}", node


def _names(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.alias) and node.asname:
            yield node.name


def _registers(decorator: ast.expr, foreign: set[str]) -> bool:
    called = decorator.func if isinstance(decorator, ast.Call) else decorator
    return isinstance(called, ast.Attribute) or (isinstance(called, ast.Name) and called.id in foreign)


def _foreign(tree: ast.Module) -> dict[str, tuple[str, str]]:
    """What a module imports from others' packages: by each name here, the module that it is from, and its name there."""
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] != "include":
            found.update({alias.asname or alias.name: (node.module, alias.name) for alias in node.names})
    return found


def overrides(tree: ast.Module, name: str) -> bool:
    """Tell whether a method, ``Class.method``, is one of a class that its own class has from others' packages: they call it.

    The other package is imported to know.
    """
    cls, _, method = name.rpartition(".")
    foreign = _foreign(tree)
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and node.name == cls:
            return any(hasattr(base, method) for base in map(partial(_imported, foreign), node.bases))
    return False


def _imported(foreign: Mapping[str, tuple[str, str]], base: ast.expr) -> object:
    """The class of another package that is named as a base, by its name or by ``module.Name``; None: it is one of ours."""
    first, *rest = ast.unparse(base).split(".")
    if first not in foreign:
        return None
    module, name = foreign[first]
    with contextlib.suppress(ModuleNotFoundError):  # the name may be a module itself
        import_module(f"{module}.{name}")
    found: object = import_module(module)
    for part in (name, *rest):
        found = getattr(found, part)
    return found


def doubled(modules: Parsed) -> dict[str, set[str]]:
    """Find public classes whose name stands for another thing in another module."""
    where: dict[str, set[str]] = defaultdict(set)
    for module, tree in modules.items():
        for node in tree.body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                where[node.name].add(module)
    return {name: there for name, there in where.items() if len(there) > 1}


def writers(sql: Iterable[tuple[str, str]]) -> dict[str, set[str]]:
    """Tell which rooms write which table.

    Args:
        sql: pairs of a room and some SQL of it.
    """
    found: dict[str, set[str]] = defaultdict(set)
    for room, text in sql:
        for table in written(text):
            found[table].add(room)
    return dict(found)


def loose_reads(tree: ast.AST) -> set[str]:
    """Find functions that take rows as dicts: they fetch, or loop over what they execute, by a cursor that makes no type of a row.

    A connection that a function opens itself (``psycopg.connect``) gives tuples, and is not one of ours.
    """
    return {node.name for node in ast.walk(tree) if isinstance(node, _Function) and _is_loose(node)}


def _is_loose(function: _Function) -> bool:
    nodes = list(ast.walk(function))
    names = {node.id for node in nodes if isinstance(node, ast.Name)} | {node.attr for node in nodes if isinstance(node, ast.Attribute)}
    looped = [node.iter for node in nodes if isinstance(node, ast.For | ast.AsyncFor | ast.comprehension)]
    executed = any(isinstance(each, ast.Call) and isinstance(each.func, ast.Attribute) and each.func.attr == "execute" for each in looped)
    return (executed or bool(names & {"fetchone", "fetchall", "fetchmany"})) and not names & {"class_row", "scalar_row", "connect"}
