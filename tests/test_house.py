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
from tests.kit import measures, quiet
from tests.kit.promises import Named, held_by, promises

BASE = {"errors", "clock", "settings", "faults", "lazy", "frozen", "inert"}
PURE = {"models", "rules"}
# Rooms that stand above the order of the others: what starts processes, what Airflow calls, what a person calls, and what plays with all of it.
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
def parsed() -> dict[str, ast.Module]:
    """The same, parsed."""
    return {name: ast.parse(path.read_text()) for name, path in sources().items()}


@cache
def imports(module: str) -> frozenset[str]:
    """All that a module imports, anywhere in it: dotted names of modules (of ours), or of packages (of others)."""
    found: set[str] = set()
    for node in ast.walk(parsed()[module]):
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


def is_pure(module: str) -> bool:
    """Rules, and what says of itself, at the end of its docstring, that it is pure."""
    return layer(module) == "rules" or (ast.get_docstring(parsed()[module]) or "").endswith("Pure.")


def test_models_stand_on_models_only_and_what_is_pure_on_what_is_pure() -> None:
    guilty = {}
    for name in (name for name in in_rooms() if room(name) != "worker" and (layer(name) == "models" or is_pure(name))):
        allowed = {
            found for found in ours(name) if layer(found) in BASE | {"models"} or (found in sources() and is_pure(found) and is_pure(name))
        }
        if above := ours(name) - allowed - {PUBLIC_NAMES}:
            guilty[name] = above
    assert guilty == {}
    assert is_pure("include.tasks.rules") and is_pure("include.repository.letters") and not is_pure("include.tasks.service")  # control


def test_what_is_pure_does_no_io_and_knows_no_clock() -> None:
    forbidden = {"psycopg", "socket", "subprocess", "httpx", "time", "random", "secrets", "os", "pathlib", "redis"}
    guilty = {name: bad for name in in_rooms() if is_pure(name) and (bad := {f.split(".")[0] for f in imports(name)} & forbidden)}
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


def foreign(users: set[str], used: str, edges: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Imports of a room by any other than these."""
    return [(name, found) for name, found in edges if room(found) == used and room(name) not in (*users, used)]


@pytest.mark.parametrize("apart", ["drills", "offline"])
def test_only_the_command_line_imports_the_drills_and_the_offline_model(apart: str) -> None:
    edges = [(name, found) for name in sources() for found in ours(name)]
    assert foreign({"cli"}, apart, edges) == []
    guilty = ("include.goals.service", f"include.{apart}.model")
    assert foreign({"cli"}, apart, [*edges, guilty]) == [guilty]  # control


def test_the_drills_know_the_command_line_by_one_module() -> None:
    users = [name for name in in_rooms() if room(name) == "drills" and any(room(found) == "cli" for found in ours(name))]
    assert users == ["include.drills.person"]


def test_the_database_imports_no_room() -> None:
    def imported(of: str) -> list[tuple[str, str]]:
        return [(name, found) for name in in_rooms() if room(name) == of for found in ours(name) if room(found) not in ("", of)]

    assert imported("database") == []
    assert imported("local")  # control: an import of another room is seen


def empty(rooms: dict[str, list[str]]) -> set[str]:
    """Rooms in which no module holds anything."""
    return {name for name, texts in rooms.items() if not any(text.strip() for text in texts)}


def test_no_room_is_empty() -> None:
    folders = [folder for folder in (ROOT / "include").iterdir() if folder.is_dir() and folder.name != "__pycache__"]
    rooms = {folder.name: [path.read_text() for path in folder.rglob("*.py")] for folder in folders}
    assert len(rooms) > 15 and empty(rooms) == set()
    assert empty({**rooms, "tomorrow": [""]}) == {"tomorrow"}  # control


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


# -- measures -----------------------------------------------------------------------------------------------------------

OWNERS = {
    "agents": "agents",
    "airlock_version": "database",
    "artifacts": "artifacts",
    "attempt_keys": "leases",
    "attempts": "tasks",
    "audit_log": "governance",
    "base_results": "gate",
    "decisions": "policy",
    "evidence": "sandbox",
    "goal_runs": "goals",
    "goals": "goals",
    "leases": "leases",
    "merges": "merge",
    "model_calls": "broker",
    "model_requests": "agents",
    "nodes": "fleet",
    "notices": "governance",
    "outbox": "messages",
    "plans": "plans",
    "processed_messages": "broker",
    "pulses": "leases",
    "questions": "broker",
    "repositories": "repository",
    "reworks": "tasks",
    "task_events": "tasks",
    "task_runs": "tasks",
    "transcripts": "broker",
    "transitions": "database",
    "verdicts": "gate",
}
"""Each table, and the room whose SQL writes it."""
MOST_SUBSCRIPTS = 200
"""Places in the product that may read a dict by a constant name."""
THROWAWAY = {"drills/bench"}
"""The benchmarks fill databases that only they have, and that go away with them."""
AIRFLOWS = {"job"}
"""Tables of Airflow's own database."""
GUILTY = """
def many(self, a, b, c, d, e, *, f, **more): return a["x"]
def few(a, b, c, d, e, f): return a[0]
class Answer:
    def nobody(self): return self.nobody()
"""


def test_few_dicts_are_read_by_the_names_of_their_keys() -> None:
    assert measures.subscripts(ast.parse(GUILTY)) == 1  # control: only the constant name counts
    assert sum(map(measures.subscripts, parsed().values())) <= MOST_SUBSCRIPTS


def larger(modules: dict[str, ast.Module], parameters: int, lines: int) -> set[str]:
    """Functions with more parameters or more lines than these."""
    measured = [(module, function) for module, tree in modules.items() for function in measures.functions(tree)]
    return {f"{module}.{function.name}" for module, function in measured if function.parameters > parameters or function.lines > lines}


def test_no_function_takes_more_than_six_parameters() -> None:
    assert larger({"m": ast.parse(GUILTY)}, 6, 999) == {"m.many"}  # control
    assert larger(parsed(), 6, 999) == set()


def test_no_function_is_longer_than_forty_lines() -> None:
    control = ast.parse("def long():\n" + "    pass\n" * 40 + "def short():\n" + "    pass\n" * 39)
    assert larger({"m": control}, 99, 40) == {"m.long"}
    assert larger(parsed(), 99, 40) == set()


def test_no_file_is_longer_than_three_hundred_lines() -> None:
    lengths = {name: len(path.read_text().splitlines()) for name, path in sources().items()}
    assert max(lengths.values()) > 200  # control: they are counted
    assert {name for name, lines in lengths.items() if lines > 300} == set()


def sql_of_rooms() -> list[tuple[str, str]]:
    """Each room with the SQL of its files and of its strings; the migrations make the tables and are no room's."""
    files = [path for path in (ROOT / "include").rglob("*.sql") if "migrations" not in path.parts]
    in_files = [(whose(path), path.read_text()) for path in files]
    return [*in_files, *((whose(sources()[name]), measures.strings(tree)) for name, tree in parsed().items() if ".migrations." not in name)]


def whose(path: Path) -> str:
    """The room of a file, or the part of it that has a database of its own."""
    folder = path.relative_to(ROOT).parent.as_posix().removeprefix("include/")
    return folder if folder in THROWAWAY else folder.partition("/")[0]


def also_written(writers: dict[str, set[str]]) -> dict[str, set[str]]:
    """Tables that other rooms than their own write, and those rooms."""
    return {table: more for table, rooms in writers.items() if table not in AIRFLOWS and (more := rooms - {OWNERS[table]} - THROWAWAY)}


def test_each_table_is_written_by_its_own_room_only() -> None:
    assert also_written(measures.writers(sql_of_rooms())) == {}
    guilty = "-- seeks goals FOR UPDATE OF g\nWITH x AS (DELETE FROM leases) INSERT INTO plans VALUES (1) ON CONFLICT DO UPDATE SET a = 1; UPDATE nodes n"
    assert measures.written(guilty) == {"leases", "plans", "nodes"}  # control
    assert also_written({"leases": {"leases", "cli"}, "goals": {"goals"}}) == {"leases": {"cli"}}


KIT = ("goals", "goal_runs", "task_runs", "attempts", "leases")
"""Tables whose rows tests build by ``tests/kit/build.py``: by the product's services, so that a new column changes no test."""
BY_HAND = {"tests/state/rows_of_0001.sql": "a recording of a database of the first version, which later ones must migrate"}
"""Files of tests that spell rows of these tables, and why."""


def spelled(texts: dict[str, str]) -> set[str]:
    """Files that insert rows of the kit's tables by hand."""
    return {name for name, text in texts.items() if re.search(rf"INSERT INTO ({'|'.join(KIT)})\b", text)}


def test_tests_build_rows_by_the_kit() -> None:
    paths = [path for kind in ("*.py", "*.sql") for path in (ROOT / "tests").rglob(kind)]
    assert spelled({path.relative_to(ROOT).as_posix(): path.read_text() for path in paths}) == set(BY_HAND)
    assert spelled({"guilty": f"INSERT INTO {KIT[0]} VALUES (1)", "goals.sql": "INSERT INTO plans VALUES (1)"}) == {"guilty"}  # control


def test_rows_are_read_as_types() -> None:
    assert {f"{name}.{function}" for name, tree in parsed().items() for function in measures.loose_reads(tree)} == set()
    control = """
def fetched(c): return c.execute("SELECT 1").fetchone()
def looped(c): return [row["id"] for row in c.execute("SELECT 1")]
def typed(c): return c.cursor(row_factory=class_row(Model)).execute("SELECT 1").fetchall()
"""
    assert measures.loose_reads(ast.parse(control)) == {"fetched", "looped"}


def test_every_public_function_is_used() -> None:
    found = measures.unused(parsed())
    of_modules = {name: max((module for module in parsed() if name.startswith(f"{module}.")), key=len) for name in found}
    ours_alone = {name for name, module in of_modules.items() if not measures.overrides(parsed()[module], name.removeprefix(f"{module}."))}
    assert ours_alone == set()
    assert measures.unused({"m": ast.parse(GUILTY + "few(1, 2, 3, 4, 5, 6)")}) == {"m.many", "m.Answer.nobody"}  # control
    thread = ast.parse("from threading import Thread\nclass Mine(Thread):\n def run(self): 1\n def walk(self): 1")
    assert (measures.overrides(thread, "Mine.run"), measures.overrides(thread, "Mine.walk")) == (True, False)  # control


def test_one_name_of_a_class_means_one_thing() -> None:
    assert measures.doubled({"a": ast.parse(GUILTY), "b": ast.parse(GUILTY)}) == {"Answer": {"a", "b"}}  # control
    assert set(measures.doubled(parsed())) == set()


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


def test_the_pace_follows_from_the_heartbeat_timeout() -> None:
    pace = ("pulse_s", "pulse_gap_s", "silence_s", "calm_s", "last_line_s")
    usual, slow = Settings(), Settings(heartbeat_timeout_s=60)
    assert [getattr(usual, name) for name in pace] == [2, 6, 30, 30, 60]
    assert [getattr(slow, name) for name in pace] == [2 * getattr(usual, name) for name in pace]  # control: each does follow


def test_every_promise_names_tests_and_controls_that_exist() -> None:
    rows = promises()
    assert len(rows) > 50 and [row.words for row in rows if not row.tests or not all(named.test for named in row.controls)] == []
    assert [row.words for row in rows if not row.controls] == []
    assert [f"{named.path}::{named.test}[{named.case}]" for row in rows for named in (*row.tests, *row.controls) if not exists(named)] == []


def test_a_test_of_a_promise_leads_back_to_it() -> None:
    for row in promises():
        for named in (*row.tests, *row.controls):
            assert row.words in held_by(named.path, named.test or "test_anything", named.case), named
    assert held_by("tests/test_house.py", "test_that_is_not_there", "") == []  # control


def exists(named: Named) -> bool:
    """The file is there, the function stands in it, and so do the words of its case."""
    text = (ROOT / named.path).read_text() if (ROOT / named.path).exists() else ""
    return bool(text) and (not named.test or f"def {named.test}(" in text) and named.case in text


def untrue(walks: str) -> list[str]:
    """Stops of walks, ``room/file.py:function``, that are not in the house."""
    stops = re.findall(r"`([a-z_/]+\.py)(?::([a-z_]+))?`", walks)
    texts = {file: (ROOT / "include" / file).read_text() if (ROOT / "include" / file).is_file() else "" for file, _ in stops}
    return [f"{file}:{name}" for file, name in stops if not texts[file] or (name and f"def {name}(" not in texts[file])]


def test_the_architecture_names_every_room_and_file() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text()
    named = {
        row: set(re.findall(r"`([a-z_]+)/?`", files))
        for row, files in re.findall(r"^\| `([a-z_]+)` \| [^|]+ \| (.*) \|$", page, re.MULTILINE)
    }
    there: dict[str, set[str]] = {}
    for name in in_rooms():
        if sources()[name].name != "__init__.py":
            there.setdefault(room(name), set()).add(layer(name))
    by_folder = {layer(name) for name in in_rooms() if {"migrations", "bench", "chaos"} & set(name.split("."))}  # their folders are named
    missing = {where: files - named.get(where, set()) - by_folder - {"models"} for where, files in there.items()}
    assert {where: files for where, files in missing.items() if files} == {}
    said_too = {"definitions", "migrations", "bench", "chaos", "kinds", "steps", "suites", "playbooks", "sample", "settings", "standing"}
    gone = {where: files - there[where] - said_too - {"models"} for where, files in named.items() if where in there}
    assert {where: files for where, files in gone.items() if files} == {}


def test_the_walks_of_the_architecture_are_true() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text()
    walks = page[page.index("## Six walks") : page.index("## Ids")]
    assert untrue(walks) == []
    assert untrue("`goals/intake.py:nobody` `nowhere/at.py`") == ["goals/intake.py:nobody", "nowhere/at.py:"]  # control
    titles = re.split(r"^\*\*.*\*\*$", walks, flags=re.MULTILINE)[1:]
    assert len(titles) == 6 and max(len(walk.strip().splitlines()) for walk in titles) <= 24  # a screen


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
