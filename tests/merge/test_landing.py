"""The finished goal comes into the person's repository once, as one merge, and never over anything that a person has there."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from include.database.unit_of_work import transaction
from include.errors import GitFailed, Refused
from include.gate import verifier
from include.gate.models import Allowed, Case
from include.merge import landing
from include.merge.models import Landed, Landing, LandingConflict
from include.repository import git, killed_push, remotes, trees
from include.repository.killed_push import Leftover
from tests.conftest import wait_until
from tests.kit.scale import limit
from tests.merge.world import GREEN, RUN, World
from tests.repository.people import Repo


def prepare(world: World) -> Landing:
    with transaction("airflow") as connection:
        return landing.prepare_landing(connection, world.settings, RUN)


def land(world: World, prepared: Landing) -> Landed:
    with transaction("airflow") as connection:
        return landing.land(connection, world.settings, RUN, prepared)


@pytest.fixture
def merged(world: World) -> World:
    """Two tasks are merged into the goal branch."""
    for key in ("a", "b"):
        task_run = world.work(key, {f"{key}_new.py": f"N = '{key}'\n"})
        world.verify(task_run)
        world.merge(task_run)
    return world


def test_checked_out_and_clean_is_brought_forward(merged: World) -> None:
    (merged.person.path / "notes.txt").write_text("not in git, not in the way")
    prepared = prepare(merged)
    assert not prepared.needs_verification and prepared.candidate.tree == trees.tree_of(merged.mirror, merged.tip())
    assert land(merged, prepared) == ("landed", prepared.candidate.commit, "")
    person = merged.person
    assert person.tip("main") == person.tip() == prepared.candidate.commit
    assert (person.path / "a_new.py").read_text() == "N = 'a'\n"
    assert person.git("status", "--porcelain") == "?? notes.txt"
    assert person.git("log", "-1", "--format=%B").splitlines() == [
        "Add a feature Tasks: forged", "", f"Goal-Run: {RUN}", "Tasks: a, b",
    ]  # fmt: skip
    assert merged.row("SELECT landed_commit, landing_note FROM goal_runs") == {"landed_commit": person.tip(), "landing_note": ""}


@pytest.mark.parametrize("dirt", ["changed", "staged", "in the way"])
def test_uncommitted_changes_stay_and_the_result_waits_on_its_branch(merged: World, dirt: str) -> None:
    person = merged.person
    (person.path / ("a_new.py" if dirt == "in the way" else "a.py")).write_text("MINE = 1\n")
    if dirt == "staged":
        person.git("add", "a.py")
    before = person.git("status", "--porcelain")
    landed = land(merged, prepare(merged))
    assert landed.outcome == "kept" and f"airlock/{RUN}" in landed.note and str(person.path) in landed.note
    assert person.tip("main") == merged.base and person.git("status", "--porcelain") == before
    assert person.tip(f"airlock/{RUN}") == landed.commit
    assert merged.row("SELECT landing_note FROM goal_runs")["landing_note"] == landed.note


def test_base_not_checked_out(merged: World) -> None:
    merged.person.git("checkout", "--quiet", "-b", "elsewhere")
    merged.person.write({"a.py": "MINE = 1\n"})
    landed = land(merged, prepare(merged))
    assert landed.outcome == "landed" and merged.person.tip("main") == landed.commit
    assert merged.person.tip() == merged.base and (merged.person.path / "a.py").read_text() == "MINE = 1\n"


def test_base_checked_out_in_a_linked_work_tree(merged: World, tmp_path: Path) -> None:
    merged.person.git("checkout", "--quiet", "-b", "elsewhere")
    merged.person.git("worktree", "add", "--quiet", str(tmp_path / "linked"), "main")
    landed = land(merged, prepare(merged))
    assert landed.outcome == "landed" and (tmp_path / "linked" / "a_new.py").exists()
    assert Repo(tmp_path / "linked").git("status", "--porcelain") == ""


def test_bare_repository(merged: World, tmp_path: Path) -> None:
    merged.person.git("clone", "--quiet", "--bare", ".", str(tmp_path / "bare.git"))
    with transaction("owner") as connection:
        connection.execute("UPDATE repositories SET path = %s", [str(tmp_path / "bare.git")])
    landed = land(merged, prepare(merged))
    assert landed.outcome == "landed" and Repo(tmp_path / "bare.git").tip("main") == landed.commit


def test_base_that_moved_needs_a_verification_of_its_own(merged: World) -> None:
    merged.person.commit({"theirs.py": "T = 1\n"})
    prepared = prepare(merged)
    assert prepared.needs_verification
    with pytest.raises(Refused, match="no green verdict"):
        land(merged, prepared)
    with transaction("airflow") as connection:
        verifier.request_verdict(connection, Case(RUN, None, None, prepared.candidate.tree, Allowed("landing")), GREEN)
    merged.judge(prepared.candidate.tree, True)
    assert not prepare(merged).needs_verification
    third = land(merged, prepared)
    assert third.outcome == "landed", third
    assert {"theirs.py", "a_new.py", "b_new.py"} <= set(trees.files(merged.mirror, prepared.candidate.commit))


def test_base_that_moves_after_the_preparation_is_not_run_over(merged: World) -> None:
    prepared = prepare(merged)
    theirs = merged.person.commit({"theirs.py": "T = 1\n"})
    assert land(merged, prepared).outcome == "moved"
    assert merged.person.tip("main") == theirs


def test_conflict_keeps_the_branch(merged: World) -> None:
    merged.person.commit({"a_new.py": "N = 'theirs'\n"})
    with pytest.raises(LandingConflict, match=r"a_new\.py") as conflict:
        prepare(merged)
    assert conflict.value.paths == ("a_new.py",)
    assert merged.person.tip(f"airlock/{RUN}") == merged.tip()


def test_killed_after_the_push_is_recognised(merged: World) -> None:
    prepared = prepare(merged)
    with pytest.raises(ZeroDivisionError), transaction("airflow") as connection:
        landing.land(connection, merged.settings, RUN, prepared)
        raise ZeroDivisionError  # as a process that dies before the commit
    assert merged.row("SELECT landed_commit FROM goal_runs")["landed_commit"] is None
    merged.person.commit({"later.py": "L = 1\n"})
    again = prepare(merged)
    assert again.nothing_to_do
    assert land(merged, again) == ("already", prepared.candidate.commit, "")
    assert merged.person.git("log", "--first-parent", "--merges", "--format=%H", "main").split() == [prepared.candidate.commit]


@pytest.fixture(autouse=True)
def still_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lock counts as left behind after half a second, where the product waits for three."""
    monkeypatch.setattr(killed_push, "STILL_S", limit(0.5))


@pytest.fixture
def in_vain_shortly(still_soon: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is waited for in vain is waited for shortly, where the product waits for ten seconds."""
    monkeypatch.setattr(killed_push, "PATIENCE_S", killed_push.STILL_S + limit(1))


def _killed_push(merged: World, where: str) -> Landing:
    """Land once, with git killed after the work tree came forward and before the branch did, or in the middle of the work tree."""
    person = merged.person.path
    if where == "before the branch moved":
        hook = _hook(person, "push-to-checkout", 'git read-tree -u -m HEAD "$1" && kill -9 $PPID')  # what git does itself without the hook
    elif where == "while the branch moved":
        hook = _hook(person, "reference-transaction", 'grep -q refs/heads/main && test "$1" = prepared && kill -9 $PPID\nexit 0')
    else:
        (person / ".git/info").mkdir(exist_ok=True)
        (person / ".git/info/attributes").write_text("b_new.py filter=death\n")
        both = "read -r _ _ _ receiver _ < /proc/$PPID/stat; kill -9 $receiver $PPID"  # as all that runs is killed at once
        merged.person.git("config", "filter.death.smudge", both)
        merged.person.git("config", "filter.death.clean", "cat")
    prepared = prepare(merged)
    with pytest.raises(GitFailed):
        land(merged, prepared)
    assert merged.person.tip("main") == merged.base
    if where == "in the work tree":
        (person / ".git/info/attributes").unlink()
    else:
        hook.unlink()
    return prepared


def _hook(person: Path, name: str, script: str) -> Path:
    hook = person / ".git/hooks" / name
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(f"#!/bin/sh\n{script}\n")
    hook.chmod(0o755)
    return hook


LEFT = {
    "before the branch moved": "a_new.py",
    "in the work tree": ".git/index.lock",
    "while the branch moved": ".git/refs/heads/main.lock",
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("where", LEFT)
def test_a_push_killed_in_the_middle_is_undone_and_made_again(merged: World, where: str) -> None:
    prepared = _killed_push(merged, where)
    assert (merged.person.path / LEFT[where]).exists()
    assert land(merged, prepared) == ("landed", prepared.candidate.commit, "")
    assert merged.person.git("status", "--porcelain") == "" and merged.person.tip() == prepared.candidate.commit
    assert not list((merged.person.path / ".git").rglob("*.lock"))


@pytest.mark.slow
@pytest.mark.parametrize("where", ["in the work tree", "while the branch moved"])
@pytest.mark.usefixtures("in_vain_shortly")
def test_control_a_killed_push_that_was_not_written_down_stays(merged: World, where: str) -> None:
    prepared = _killed_push(merged, where)
    (merged.mirror / "airlock-push").unlink()
    landed = land(merged, prepared)
    lock = merged.person.path / LEFT[where]
    assert landed.outcome == "kept" and str(lock) in landed.note
    for said in killed_push.locks_of(str(merged.person.path), "refs/heads/main"):
        Path(said).unlink()  # as the note says
    assert land(merged, prepared).outcome == "landed"
    assert merged.person.git("status", "--porcelain") == "" and merged.person.tip() == prepared.candidate.commit


@pytest.mark.slow
@pytest.mark.parametrize("written_down", [True, False], ids=["", "control: not written down"])
@pytest.mark.parametrize("where", LEFT)
def test_whoever_lands_next_undoes_the_killed_push_of_another(
    merged: World, request: pytest.FixtureRequest, where: str, written_down: bool
) -> None:
    _killed_push(merged, where)
    if not written_down:
        request.getfixturevalue("in_vain_shortly")
        (merged.mirror / "airlock-push").unlink()
    tree = f"{merged.base}^{{tree}}"
    other = git.text(["commit-tree", tree, "-p", merged.base, "-m", "Another goal"], merged.mirror, git.How(git.IDENTITY))
    refusal = remotes.at(str(merged.person.path)).push(merged.mirror, other, "refs/heads/main", merged.base)
    assert (refusal is None) == (merged.person.tip("main") == other) == (merged.person.git("status", "--porcelain") == "") == written_down


@pytest.mark.slow
@pytest.mark.parametrize("seen", [True, False], ids=["", "control: who is at work is not looked at"])
def test_the_lock_of_a_person_at_work_stays(merged: World, monkeypatch: pytest.MonkeyPatch, seen: bool) -> None:
    """A commit that waits for its editor, begun after a push of ours was killed."""
    _killed_push(merged, "while the branch moved")
    if seen:
        monkeypatch.setattr(killed_push, "PATIENCE_S", killed_push.STILL_S + limit(1))  # it is waited for in vain
    else:
        monkeypatch.setattr(killed_push, "_git_at_work", lambda _: False)
    (merged.person.path / "a.py").write_text("MINE = 1\n")
    lock = merged.person.path / ".git/index.lock"
    writing = subprocess.Popen(["git", "-c", "core.editor=sleep 60 #", "commit", "-a"], cwd=merged.person.path, stderr=subprocess.DEVNULL)
    try:
        wait_until("its editor is open", lock.exists)
        with killed_push.alone(merged.mirror):
            left = killed_push.undo(merged.mirror)
        assert (left is Leftover.LOCKED) == lock.exists() == seen
    finally:
        writing.kill()
        writing.wait()


def test_a_push_waits_for_another_and_not_for_ever(merged: World, monkeypatch: pytest.MonkeyPatch) -> None:
    prepared = prepare(merged)
    monkeypatch.setattr(killed_push, "ALONE_S", 0.3)
    with killed_push.alone(merged.mirror), pytest.raises(GitFailed, match="has not ended"):
        land(merged, prepared)
    assert land(merged, prepared).outcome == "landed"


def test_a_torn_note_is_no_push(merged: World) -> None:
    (merged.mirror / "airlock-push").write_text("")
    assert land(merged, prepare(merged)).outcome == "landed"


@pytest.mark.parametrize("where", ["work tree", "index"])
def test_a_killed_push_beside_a_persons_work_touches_nothing(merged: World, where: str) -> None:
    prepared = _killed_push(merged, "before the branch moved")
    mine = merged.person.path / "a_new.py"
    mine.write_text("MINE = 1\n")
    if where == "index":
        merged.person.git("add", "a_new.py")
        mine.write_text("N = 'a'\n")
    before = merged.person.git("status", "--porcelain"), merged.person.git("ls-files", "-s")
    assert land(merged, prepared).outcome == "kept"
    assert (merged.person.git("status", "--porcelain"), merged.person.git("ls-files", "-s")) == before


def test_hook_of_the_person_may_refuse(merged: World) -> None:
    hook = merged.person.path / ".git/hooks/update"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text('#!/bin/sh\ntest "$1" != refs/heads/main\n')
    hook.chmod(0o755)
    landed = land(merged, prepare(merged))
    assert landed.outcome == "kept" and "hook" in landed.note
    assert merged.person.tip("main") == merged.base


def test_control_a_forced_push_runs_over_the_person(merged: World) -> None:
    prepared = prepare(merged)
    merged.person.git("checkout", "--quiet", "-b", "elsewhere")
    merged.person.git("checkout", "--quiet", "main")
    merged.person.commit({"theirs.py": "T = 1\n"})
    merged.person.git("checkout", "--quiet", "elsewhere")
    merged.git("push", "--quiet", "--force", str(merged.person.path), f"{prepared.candidate.commit}:refs/heads/main")
    assert "theirs.py" not in merged.person.git("ls-tree", "-r", "--name-only", "main")
