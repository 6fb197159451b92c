"""What is shown of goals: typed pictures, read by a role that can write nothing and cannot read the keys."""

from __future__ import annotations

import psycopg
import pytest
from psycopg import sql
from pydantic import ValidationError

from include.agents import service as agents
from include.cli.person import look
from include.database.queries import load
from include.database.unit_of_work import transaction
from include.errors import NotFound
from include.fleet import service as fleet
from include.repository import service as repositories
from include.settings import Settings
from include.views import goals, leftovers
from include.views.models import GoalView, TaskView
from tests.kit import build
from tests.leases.world import World

FORBIDDEN = "attempt_keys"
PLAN = '{"summary": "s", "tasks": [{"key": "t2", "title": "Second"}, {"key": "t9", "title": "Not begun"}, {"key": "t1", "title": "First"}]}'


def tables() -> list[str]:
    with transaction("owner") as connection:
        rows = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1").fetchall()
    return [row["tablename"] for row in rows]


def writes(role: str, table: str) -> list[str]:
    """What a role may do to a table that is more than reading, to the whole of it or to a column."""
    kinds = ("INSERT", "UPDATE", "DELETE", "TRUNCATE", "REFERENCES", "TRIGGER", "MAINTAIN")
    with transaction("owner") as connection:
        return [
            kind for kind in kinds
            if connection.execute("SELECT has_table_privilege(%s, %s, %s) AS may", [f"airlock_{role}", table, kind]).fetchone() == {"may": True}
            or (kind in ("INSERT", "UPDATE", "REFERENCES")
                and connection.execute("SELECT has_any_column_privilege(%s, %s, %s) AS may",
                                       [f"airlock_{role}", table, kind]).fetchone() == {"may": True})
        ]  # fmt: skip


def test_the_viewer_reads_every_table_but_the_keys_and_writes_none(settings: Settings) -> None:
    names = tables()
    assert FORBIDDEN in names and len(names) > 20
    assert {name: found for name in names if (found := writes("viewer", name))} == {}
    for name in names:
        statement = sql.SQL("SELECT * FROM {} LIMIT 1").format(sql.Identifier(name))
        if name == FORBIDDEN:
            with pytest.raises(psycopg.errors.InsufficientPrivilege), transaction("viewer") as connection:
                connection.execute(statement)
        else:
            look(lambda connection, statement=statement: connection.execute(statement).fetchall())  # type: ignore[misc]


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE leases SET revoked_at = now()",
        "UPDATE goal_runs SET state = 'CANCELLED'",
        "INSERT INTO repositories (name, path, listed) VALUES ('x', '/x', true)",
        "INSERT INTO audit_log (actor, action, subject) VALUES ('a', 'a', 's')",
        "DELETE FROM notices",
        "TRUNCATE audit_log",
        "CREATE TABLE mine ()",
        "SELECT prune('90 days', '30 days', 1)",
        "SELECT beat('broker/x', '5 s')",
        "SELECT airflow_beats()",
        "SELECT nextval('notices_id_seq')",
        "SET ROLE airlock_cli",
        "SELECT 1 FROM goal_runs FOR UPDATE",
    ],
)
def test_the_database_refuses_what_a_viewer_tries_to_change(settings: Settings, statement: str) -> None:
    World(settings, 1)
    with pytest.raises(psycopg.errors.InsufficientPrivilege), transaction("viewer") as connection:
        connection.execute(statement)


def test_control_another_role_writes_and_the_keys_can_be_read(settings: Settings) -> None:
    """What refuses above are the viewer's rights: the command line's own role writes, and the warden reads the keys."""
    World(settings, 1)
    assert "INSERT" in writes("cli", "repositories") and "UPDATE" in writes("cli", "leases")
    with transaction("cli") as connection:
        assert connection.execute("UPDATE leases SET revoked_at = now()").rowcount == 1
    with transaction("warden") as connection:
        connection.execute("SELECT in_key FROM attempt_keys")


def test_a_table_that_comes_later_is_read_and_not_written(settings: Settings) -> None:
    with transaction("owner") as connection:
        connection.execute("CREATE TABLE later (word text)")
        connection.execute("INSERT INTO later VALUES ('one')")
    assert look(lambda connection: connection.execute("SELECT word FROM later").fetchall()) == [{"word": "one"}]
    assert writes("viewer", "later") == [] and writes("owner", "later")
    with pytest.raises(psycopg.errors.InsufficientPrivilege), transaction("viewer") as connection:
        connection.execute("INSERT INTO later VALUES ('two')")


def test_views_only_read() -> None:
    statements = vars(load(goals.__file__))
    assert len(statements) >= 10
    assert [name for name, text in statements.items() if not text.lstrip().startswith("SELECT")] == []


# -- pictures --------------------------------------------------------------------------------------------------------------


def test_a_picture_has_the_tasks_of_the_plan_in_its_order(settings: Settings) -> None:
    world = World(settings, 2)
    build.plan(world.database, world.goal, PLAN)
    world.do("UPDATE goal_runs SET plan = (SELECT seq FROM plans)")
    world.do("UPDATE attempts SET step = 'reads', rung = 'container' WHERE task_run = 'g1-t2'")
    world.do("INSERT INTO notices (key, kind, goal_run, words) VALUES ('k', 'warning', 'g1', 'slow'), ('l', 'incident', 'g1', 'lost')")
    world.do(
        "INSERT INTO verdicts (id, goal_run, task_run, epoch, tree, suite, facts, green, findings, judged_at) VALUES"
        " (gen_random_uuid(), 'g1', 'g1-t1', 1, 't', 'change', '{}', false,"
        """ '[{"expectation": "e", "message": "Mend it", "severity": "critical"}]', now()),"""
        " (gen_random_uuid(), 'g1', null, null, 't', 'landing', '{}', true, '[]', now() + interval '1 s'),"
        " (gen_random_uuid(), 'g1', null, null, 'u', 'landing', '{}', null, null, null)"
    )
    picture = look(lambda connection: goals.picture(connection, "g1"))
    assert [(task.key, task.title, task.state, task.epoch, task.step, task.rung) for task in picture.tasks] == [
        ("t2", "Second", "EXECUTING", 1, "reads", "container"),
        ("t9", "Not begun", "PENDING", 0, "", ""),
        ("t1", "First", "EXECUTING", 1, "", "bubblewrap"),
    ]
    assert [(verdict.key, verdict.epoch, verdict.green) for verdict in picture.verdicts] == [("t1", 1, False), (None, None, True)]
    assert picture.verdicts[0].findings[0].message == "Mend it"
    assert [(notice.kind, notice.words) for notice in picture.notices] == [("warning", "slow"), ("incident", "lost")]
    assert (picture.state, picture.repository_path, picture.offline, picture.tokens) == ("RUNNING", "/nowhere", False, 0)
    assert 0 <= picture.wall_s < 60 and picture.ended_at is None


def test_a_run_without_a_plan_has_no_tasks_and_one_that_is_not_there_no_picture(settings: Settings) -> None:
    World(settings, 2)
    assert look(lambda connection: goals.picture(connection, "g1")).tasks == ()
    with pytest.raises(NotFound, match="'g2' does not exist"):
        look(lambda connection: goals.picture(connection, "g2"))


def test_a_picture_does_not_change_and_knows_no_other_fields(settings: Settings) -> None:
    task = TaskView(key="a", title="A")
    with pytest.raises(ValidationError):
        task.state = "COMPLETED"  # type: ignore[misc, assignment]
    with pytest.raises(ValidationError):
        TaskView(key="a", title="A", colour="green")  # type: ignore[call-arg]
    assert "text" not in GoalView.model_fields  # nobody shows it yet


def test_goals_are_listed_and_found_without_a_run_too(settings: Settings) -> None:
    world = World(settings, 1)
    (line,) = look(goals.newest)
    assert (line.run, line.state, line.title, line.spent_micro) == ("g1", "RUNNING", "t", 0)
    taken = look(lambda connection: goals.of_key(connection, "k"))
    assert taken is not None and (taken.goal, taken.run) == (str(world.goal), "g1")
    assert look(lambda connection: goals.of_key(connection, "l")) is None
    build.goal(world.database, "goal_other", key="l", goal="u")
    assert [(each.dag_id, each.run, each.state) for each in look(goals.newest)] == [
        ("goal_other", None, None),
        ("goal_sample", "g1", "RUNNING"),
    ]
    with pytest.raises(NotFound, match="has no run yet"):
        look(lambda connection: goals.find_run(connection, "goal_other"))
    with pytest.raises(NotFound, match="is the beginning of 2 goals"):
        look(lambda connection: goals.find_run(connection, "goal_"))


def test_what_was_left_behind_is_counted(settings: Settings) -> None:
    world = World(settings, 2)
    left = look(lambda connection: leftovers.picture(connection, 60))
    assert (left.leases, left.live_task_runs) == (0, {"g1-t1", "g1-t2"})
    world.do("UPDATE leases SET revoked_at = now() WHERE task_run = 'g1-t1'")
    assert look(lambda connection: leftovers.picture(connection, 60)).leases == 1


def _reservations() -> int:
    with transaction("cli") as connection:
        return leftovers.picture(connection, 60).reservations


@pytest.mark.parametrize("owner", [f"jarvis/{n}" for n in range(8)])  # names whose locks have either sign, in both halves
def test_a_reservation_without_a_call_under_way_is_counted(settings: Settings, owner: str) -> None:
    world = World(settings, 1)
    assert _reservations() == 0
    world.do(
        "INSERT INTO model_calls (id, agent, goal_run, task_run, epoch, lease, request, purpose, model, address, offline, owner, reserved_micro,"
        " price_table) SELECT gen_random_uuid(), 'jarvis', goal_run, task_run, epoch, id, 'q', 'work', 'm', 'a', false, %s, 70, 't' FROM leases",
        owner,
    )
    world.do("UPDATE leases SET reserved_micro = 70, max_micro = 100")
    world.do("UPDATE goal_runs SET reserved_micro = 70")
    assert _reservations() == 1  # its broker is gone
    with psycopg.connect(settings.dsn("broker"), autocommit=True) as broker:
        broker.execute("SELECT pg_advisory_lock(hashtextextended('owner ' || %s, 0))", [owner])
        assert _reservations() == 0  # control: under way
        world.do("UPDATE model_calls SET reserved_at = reserved_at - interval '2 minutes'")
        assert _reservations() == 1  # its broker lives, and no call lasts so long
        world.do("UPDATE model_calls SET state = 'sent'")
        world.do("UPDATE model_calls SET state = 'unknown'")
        assert _reservations() == 2  # the money stayed: of the lease and of the goal run
    world.do("UPDATE leases SET reserved_micro = 0")
    world.do("UPDATE goal_runs SET reserved_micro = 0")
    assert _reservations() == 0


def test_what_rooms_list_of_their_own_a_viewer_may_ask_them(settings: Settings) -> None:
    world = World(settings, 1)
    world.do("UPDATE nodes SET heartbeat_at = now() - interval '1 minute', notice = 'no seal'")
    assert look(agents.names) == ["atlas", "jarvis", "nova"] and [known.name for known in look(repositories.every)] == ["sample"]
    (node,) = look(fleet.nodes)
    assert (node.name, node.rung, node.notice, node.alive) == ("local", "bubblewrap", "no seal", False)
