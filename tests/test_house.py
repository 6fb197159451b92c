"""The house: who may import whom, nothing unused, and every page of documentation true of the code."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path

import pytest

from include.settings import ROOT, Settings
from include.tasks.models import STEPS
from tests.kit import quiet
from tests.kit.promises import Named, promises

BASE = {"errors", "clock", "settings", "faults", "lazy", "frozen"}
PURE = {"models", "rules"}
# Rooms that stand outside the rooms' order: the database's tools serve all, local and flow use all.
TOOLS = {"include.database.queries", "include.database.unit_of_work", "include.database.rows"}
HOSTS = {"local", "flow", "cli", "drills", "offline"}
STORES = {"store"}
COMMANDS = "commands"  # what operators may have done: above all rooms' services, called by none of them
READS_FILES = {"include.catalog.store"}  # a store of reviewed YAML files: no tables that only its room may touch
PUBLIC_NAMES = "include.worker.tool_definitions"  # the tools' names and arguments are public data, on both sides of the sandbox
STARTED = (  # modules that are started as processes, by the supervisor or by each other
    "include.cli.__main__", "include.local.supervisor", "include.local.prepare", "include.local.image", "include.local.airflow",
    "include.offline.model", "include.broker.__main__", "include.gate.__main__", "include.sandbox.relay", "include.sandbox.warden",
    "include.sandbox.relay_start", "include.local.nursery",
    "include.worker.__main__", "include.drills.bench.peer_dbos", "include.drills.bench.peer_langgraph", "include.worker.run_pytest",
    *(f"include.flow.steps.{step}" for step in (*STEPS, "land", "report", "outcome")),  # goal_dag names them by its steps
)  # fmt: skip


@cache
def sources() -> dict[str, Path]:
    """Every Python module of the project by its dotted name."""
    found = {}
    for top in ("include", "dags", "plugins", "config"):
        for path in (ROOT / top).rglob("*.py"):
            parts = path.relative_to(ROOT).with_suffix("").parts
            if "sample" not in parts:
                found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@cache
def imports(module: str) -> frozenset[str]:
    """All that a module imports, anywhere in it: dotted names of modules (of ours), or of packages (of others)."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(sources()[module].read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{module}: relative import"
            deeper = {f"{node.module}.{alias.name}" for alias in node.names} & set(sources())
            found |= deeper or {node.module}
            if deeper and node.module in sources() and len(deeper) < len(node.names):
                found.add(node.module)
    return frozenset(found)


def room(module: str) -> str:
    parts = module.split(".")
    return parts[1] if parts[0] == "include" and len(parts) > 2 else ""


def layer(module: str) -> str:
    return module.rsplit(".", 1)[-1]


def ours(module: str) -> set[str]:
    return {name for name in imports(module) if name.split(".")[0] in ("include", "dags", "plugins")}


def in_rooms() -> list[str]:
    return sorted(name for name in sources() if room(name))


def test_only_flow_imports_airflow() -> None:
    guilty = [name for name in in_rooms() if room(name) != "flow" and any(found.split(".")[0] == "airflow" for found in imports(name))]
    assert guilty == []
    assert any(found.startswith("airflow") for name in in_rooms() if room(name) == "flow" for found in imports(name))  # control: it is seen


def test_the_worker_is_an_island() -> None:
    guilty = {}
    for name in (name for name in in_rooms() if room(name) == "worker"):
        foreign = {
            found
            for found in imports(name)
            if found.split(".")[0] not in sys.stdlib_module_names and not found.startswith("include.worker")
        }
        if foreign:
            guilty[name] = foreign
    # The sealed child that runs the repository's tests has pytest from the toolbox, and nothing else of it.
    assert guilty == {"include.worker.run_pytest": {"pytest"}}


def test_nobody_imports_the_worker_but_who_ships_it() -> None:
    guilty = [
        name for name in in_rooms() if room(name) not in ("worker", "sandbox") and any(room(found) == "worker" for found in ours(name))
    ]
    # Its names of tools are public: the broker offers them to the model.
    assert [name for name in guilty if ours(name) - {PUBLIC_NAMES} & {n for n in ours(name) if room(n) == "worker"}] == []


def test_the_ground_floor_imports_nothing_of_ours() -> None:
    assert {name: ours(f"include.{name}") for name in BASE} == {name: set() for name in BASE}


@pytest.mark.parametrize("kind", sorted(PURE))
def test_models_and_rules_stand_on_models_and_rules_only(kind: str) -> None:
    allowed = {"models"} if kind == "models" else PURE
    guilty = {}
    for name in (name for name in in_rooms() if layer(name) == kind and room(name) != "worker"):
        above = {found for found in ours(name) if layer(found) not in allowed | BASE and found != PUBLIC_NAMES}
        if above:
            guilty[name] = above
    assert guilty == {}


def test_rules_do_no_io_and_know_no_clock() -> None:
    forbidden = {"psycopg", "socket", "subprocess", "httpx", "time", "random", "secrets", "os", "pathlib", "redis"}
    guilty = {name: bad for name in in_rooms() if layer(name) == "rules" and (bad := {f.split(".")[0] for f in imports(name)} & forbidden)}
    assert guilty == {}


def test_no_room_reaches_into_another_rooms_store() -> None:
    guilty = [
        (name, found)
        for name in in_rooms()
        for found in ours(name)
        if layer(found) in STORES and room(found) != room(name) and found not in READS_FILES
    ]
    assert [pair for pair in guilty if room(pair[0]) not in HOSTS] == []


def test_rooms_do_not_import_flow_or_local() -> None:
    guilty = [
        (name, found)
        for name in in_rooms()
        for found in ours(name)
        if room(found) in HOSTS and room(found) != room(name) and room(name) not in HOSTS
    ]
    assert guilty == []


def test_the_services_of_the_rooms_form_no_circle() -> None:
    edges: dict[str, set[str]] = {}
    for name in in_rooms():
        if room(name) not in HOSTS and layer(name) not in PURE | {COMMANDS}:
            targets = {room(found) for found in ours(name) if room(found) and layer(found) not in PURE | {"models"}} - {
                room(name),
                "database",
            }
            edges.setdefault(room(name), set()).update(targets)
    done: list[str] = []
    while ready := [name for name in edges if name not in done and all(target in done or target not in edges for target in edges[name])]:
        done += ready
    assert {name: targets - set(done) for name, targets in edges.items() if name not in done} == {}


def test_commands_stand_above_the_rooms() -> None:
    users = {found: name for name in in_rooms() for found in ours(name) if layer(found) == COMMANDS and room(name) not in HOSTS}
    assert users == {}
    assert "include.governance.commands" in sources()  # control: there is one, and it is seen
    assert any("include.governance.commands" in ours(name) for name in in_rooms() if room(name) in HOSTS)


def test_policy_cannot_ask_a_model() -> None:
    assert [
        name
        for name in in_rooms()
        if room(name) == "policy" and any(room(found) in ("broker", "plans") and layer(found) != "models" for found in ours(name))
    ] == []


def test_everything_is_wired_or_gone() -> None:
    started = {name for name in STARTED if name in sources()}
    named = re.compile(r"[\"'](include(?:\.[a-z_]+)+)")  # class paths in settings, such as include.flow.executor.HoldingLocalExecutor
    seen, queue = set(), [*started, *(name for name in sources() if name.split(".")[0] in ("dags", "plugins", "config"))]
    while queue:
        name = queue.pop()
        if name in seen or name not in sources():
            continue
        seen.add(name)
        by_text = {text if text in sources() else text.rpartition(".")[0] for text in named.findall(sources()[name].read_text())}
        queue += [*ours(name), *by_text]
    unwired = {name for name in in_rooms() if name not in seen and not name.endswith("__init__") and sources()[name].name != "__init__.py"}
    assert sorted(name for name in unwired if "migrations" not in name) == []


def tracked() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False).stdout.split("\0")
    return [ROOT / name for name in listed if name and (ROOT / name).is_file()]


def test_no_file_names_a_place_of_a_builders_machine() -> None:
    places = [
        re.escape(f"{folder}/".encode()) for folder in {str(ROOT), str(ROOT.parent), sys.prefix, sys.base_prefix} if folder.count("/") > 1
    ]
    found = re.compile(b"|".join(places))
    named = [str(path) for path in tracked() if path.suffix != ".png" and found.search(path.read_bytes())]
    assert named == []


def test_the_version_stands_in_one_file() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    ours = [path for path in tracked() if not path.name.startswith("requirements") and "sample" not in path.parts and path.suffix != ".png"]
    named = [str(path.relative_to(ROOT)) for path in ours if re.search(rf"(?<![\d.]){re.escape(version)}(?![\d.])", path.read_text())]
    assert named == ["pyproject.toml"]


def test_lock_files_record_no_download_address() -> None:
    for lock in ROOT.glob("requirements*.txt"):
        assert "://" not in lock.read_text(), f"{lock.name} names an address: compile it without"


def test_the_readmes_files_exist() -> None:
    text = (ROOT / "README.md").read_text()
    links = re.findall(r"\]\(([^)#:]+)\)", text)
    assert len(links) > 15 and [link for link in links if not (ROOT / link).exists()] == []
    assert len(text.splitlines()) <= 80


def test_every_setting_is_documented_with_its_default_and_meaning() -> None:
    rows = dict(re.findall(r"^\| `AIRLOCK_([A-Z_]+)` \| (.*) \|$", (ROOT / "docs" / "settings.md").read_text(), re.MULTILINE))
    rows.pop("PYTHON", None)
    rows.pop("FAULTS", None)
    assert set(rows) == {name.upper() for name in Settings.model_fields}
    for name, field in Settings.model_fields.items():
        assert rows[name.upper()].endswith(f"| {field.description}"), name
        if name != "home" and field.default not in (None, ""):
            assert f"`{str(field.default).lower() if isinstance(field.default, bool) else field.default}`" in rows[name.upper()], name


def test_every_promise_names_tests_and_controls_that_exist() -> None:
    rows = promises()
    assert len(rows) > 50 and [row.words for row in rows if not row.tests or not all(named.test for named in row.controls)] == []
    assert [row.words for row in rows if not row.controls] == []
    assert [f"{named.path}::{named.test}[{named.case}]" for row in rows for named in (*row.tests, *row.controls) if not exists(named)] == []


def exists(named: Named) -> bool:
    """The file is there, the function stands in it, and so do the words of its case."""
    text = (ROOT / named.path).read_text() if (ROOT / named.path).exists() else ""
    return bool(text) and (not named.test or f"def {named.test}(" in text) and named.case in text


def test_the_pages_of_the_documentation_exist() -> None:
    pages = [*(ROOT / "docs").rglob("*.md")]
    links = [(page, link) for page in pages for link in re.findall(r"\]\(([^)#:]+)\)", page.read_text())]
    assert len(links) > 5 and [f"{page.name}: {link}" for page, link in links if not (page.parent / link).exists()] == []


@cache
def modules_of_tests() -> dict[Path, list[ast.AST]]:
    """Every module of tests, as all that stands in it."""
    return {path: list(ast.walk(ast.parse(path.read_text()))) for path in sorted((ROOT / "tests").rglob("test_*.py"))}


def test_few_tests_hold_a_wall_clock_figure() -> None:
    functions = [
        node for nodes in modules_of_tests().values() for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    users = [node.name for node in functions if "figure" in {argument.arg for argument in node.args.args}]
    assert users and all(name.startswith("test_") for name in users), "only a test holds one: no other fixture, no helper"
    assert len(users) <= quiet.MOST, users


def test_what_is_larger_for_a_release_is_marked_so() -> None:
    """``--long`` runs what is marked: a module that chooses sizes without a marked test would never be run at its full ones."""
    calling = {
        path
        for path, nodes in modules_of_tests().items()
        for node in nodes
        if isinstance(node, ast.ImportFrom) and node.module == "tests.kit.scale" and "count" in {alias.name for alias in node.names}
    }
    marked = {
        path for path, nodes in modules_of_tests().items() for node in nodes if isinstance(node, ast.Attribute) and node.attr == "sized"
    }
    assert calling and sorted(map(str, calling - marked)) == []


def test_docker_compose_accepts_the_file() -> None:
    candidates = [["docker", "compose"], ["docker-compose"]]
    usable = [
        c for c in candidates if shutil.which(c[0]) and subprocess.run([*c, "version"], capture_output=True, check=False).returncode == 0
    ]
    if not usable:
        pytest.skip("NOT CHECKED: neither `docker compose` nor `docker-compose` is installed")
    done = subprocess.run(
        [*usable[0], "-f", str(ROOT / "docker-compose.yaml"), "config", "-q"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_compose_starts_modules_that_exist() -> None:
    import yaml

    services = yaml.safe_load((ROOT / "docker-compose.yaml").read_text())["services"]
    modules = [service["command"][2] for service in services.values() if service.get("command", ["", ""])[1] == "-m"]
    assert len(modules) >= 5
    assert [name for name in modules if name not in sources() and f"{name}.__main__" not in sources()] == []
