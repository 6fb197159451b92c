"""The mirror reads one branch and explains what it cannot read; trees are compared and merged without a work tree."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from include.errors import BadInput, GitFailed
from include.repository import as_person, bundles, git, mirror, trees
from include.repository.models import Candidate
from include.settings import Settings
from tests.repository.people import Repo, make_person, make_worker, take_in


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home")


def test_only_the_asked_branch_is_fetched(settings: Settings, tmp_path: Path) -> None:
    person = make_person(tmp_path / "a person's: folder")
    person.git("branch", "secret")
    the_mirror, commit = take_in(settings, person)
    assert commit == person.tip()
    assert trees.find(the_mirror, "refs/base/main") == commit
    assert Repo(the_mirror).git("for-each-ref", "--format=%(refname)") == "refs/base/main"
    rewound = person.commit({"a.py": "A = 2\n"})
    person.git("commit", "--quiet", "--amend", "--message", "rewritten")
    assert take_in(settings, person)[1] == person.tip() != rewound


@pytest.mark.slow
def test_a_lock_of_a_killed_fetch_does_not_block(settings: Settings, tmp_path: Path) -> None:
    person = make_person(tmp_path / "person")
    the_mirror, _ = take_in(settings, person)
    lock = the_mirror / "refs/base/main.lock"
    lock.touch()
    os.utime(lock, (1_700_000_000, 1_700_000_000))
    commit = person.commit({"a.py": "A = 2\n"})
    assert take_in(settings, person)[1] == commit and not lock.exists()


def test_what_cannot_be_read_is_told_with_field_and_remedy(settings: Settings, tmp_path: Path) -> None:
    person = make_person(tmp_path / "person")
    person.commit({f"{number}": "x" for number in range(3)})
    empty, plain = tmp_path / "empty", tmp_path / "plain"
    empty.mkdir(), plain.mkdir()
    Repo(empty).git("init", "--quiet")
    person.git("clone", "--quiet", "--depth=1", f"file://{person.path}", str(tmp_path / "shallow"))
    mirror.ensure_mirror(settings, "sample", str(person.path))
    cases = [
        (str(person.path), "mian", "base", "Did you mean 'main'?"),
        (str(person.path), "-x:y", "base", "Known branches: main."),
        (str(empty), "main", "repository", "Commit something first"),
        (str(plain), "main", "repository", "not a git repository"),
        (str(tmp_path / "none"), "main", "repository", "is not a folder"),
        ("relative", "main", "repository", "is not a folder"),
        ("--upload-pack=touch /tmp/x", "main", "repository", "is not a folder"),
        (str(tmp_path / "shallow"), "main", "repository", "git fetch --unshallow"),
    ]
    for path, branch, field, words in cases:
        with pytest.raises(BadInput) as found:
            mirror.fetch_base(settings, "sample", path, branch)
        assert found.value.field == field and words in str(found.value), str(found.value)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder to another user")
def test_a_repository_of_another_user_is_not_touched(settings: Settings, tmp_path: Path) -> None:
    person = make_person(tmp_path / "person")
    for path in [person.path, *person.path.rglob("*")]:
        os.chown(path, 65534, 65534)
    with pytest.raises(BadInput, match="belongs to another user"):
        mirror.ensure_mirror(settings, "sample", str(person.path))


def test_uncommitted_changes_are_seen(tmp_path: Path) -> None:
    person = make_person(tmp_path / "person")
    assert as_person.uncommitted(person.path) == 0
    person.write({"new.py": "", "a.py": "changed"})
    assert as_person.uncommitted(person.path) == 2  # a new file, and a changed one
    person.git("clone", "--quiet", "--bare", ".", str(tmp_path / "bare"))
    assert as_person.uncommitted(tmp_path / "bare") == 0


def test_bundle_is_cached_and_holds_one_ref(settings: Settings, tmp_path: Path) -> None:
    the_mirror, commit = take_in(settings, make_person(tmp_path / "person"))
    bundle = bundles.export_bundle(settings, the_mirror, commit)
    os.utime(bundle, (0, 0))
    made = bundle.stat()
    again = bundles.export_bundle(settings, the_mirror, commit).stat()
    assert again.st_ino == made.st_ino and again.st_mtime > made.st_mtime  # the same file; who asks for it keeps it young
    assert Repo(the_mirror).git("bundle", "list-heads", str(bundle)) == f"{commit} refs/heads/airlock-base"
    assert make_worker(settings, the_mirror, commit, tmp_path / "w" / "worker").tip() == commit
    with pytest.raises(GitFailed):
        bundles.export_bundle(settings, the_mirror, "1" * 40)
    assert [path.name for path in settings.bundles_dir.iterdir()] == [f"{commit}.bundle"]


def test_diff_names_every_change(settings: Settings, tmp_path: Path) -> None:
    person = make_person(tmp_path / "person", {"a.py": "A = 1\n", "gone.txt": "1\n2\n", "odd ä\t.txt": "x\n"})
    (person.path / "binary").write_bytes(bytes(range(256)))
    person.commit({})
    _, before = take_in(settings, person)
    (person.path / "gone.txt").unlink()
    (person.path / "binary").write_bytes(bytes(range(255, -1, -1)))
    person.commit({"a.py": "A = 2\nB = 3\n", "new.py": "diff --git a/x b/x\n", "odd ä\t.txt": "y\n"})
    the_mirror, after = take_in(settings, person)
    found = {change.path: change for change in trees.diff(the_mirror, before, after)}
    told = {path: (change.action, change.additions, change.deletions) for path, change in found.items()}
    assert told == {
        "a.py": ("modified", 2, 1), "gone.txt": ("deleted", 0, 2), "new.py": ("created", 1, 0), "odd ä\t.txt": ("modified", 1, 1),
        "binary": ("modified", 0, 0),
    }  # fmt: skip
    assert "+B = 3" in found["a.py"].patch and "+diff --git a/x b/x" in found["new.py"].patch


def test_a_merge_is_the_same_commit_each_time(settings: Settings, tmp_path: Path) -> None:
    person = make_person(tmp_path / "person")
    the_mirror, base = take_in(settings, person)
    theirs = person.commit({"b.py": "B = 1\n"})
    take_in(settings, person)
    made = [trees.merge_in_memory(the_mirror, base, theirs, "title", {"Task": "a"}, 1_700_000_000) for _ in range(2)]
    assert made[0] == made[1] and isinstance(made[0], Candidate)
    assert made[0].tree == trees.tree_of(the_mirror, theirs)
    assert trees.move_ref(the_mirror, "refs/heads/x", base, trees.ZERO) is True
    assert trees.move_ref(the_mirror, "refs/heads/x", theirs, trees.ZERO) is False
    assert trees.move_ref(the_mirror, "refs/heads/x", theirs, made[0].commit) is False
    assert trees.move_ref(the_mirror, "refs/heads/x", theirs, base) is True


def test_trusted_git_runs_nothing_of_the_environment(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    the_mirror, commit = take_in(settings, make_person(tmp_path / "person"))
    mark = tmp_path / "ran"
    hooks = tmp_path / "hooks"
    hooks.mkdir()
    (hooks / "reference-transaction").write_text(f"#!/bin/sh\ntouch {mark}\n")
    (hooks / "reference-transaction").chmod(0o755)
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", "core.hooksPath")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", str(hooks))
    trees.set_ref(the_mirror, "refs/candidates/x", commit)
    assert not mark.exists()
    os.system(f"git --git-dir={the_mirror} update-ref refs/candidates/y {commit}")
    assert mark.exists()  # control: git with the environment as it is


def test_git_says_what_failed(settings: Settings, tmp_path: Path) -> None:
    the_mirror, _ = take_in(settings, make_person(tmp_path / "person"))
    with pytest.raises(GitFailed, match="git cat-file failed"):
        git.run(["cat-file", "-t", "nothing"], the_mirror)
    nothing_comes, still_open = os.pipe()
    with open(nothing_comes, "rb") as silence, open(still_open, "wb"), pytest.raises(GitFailed, match=r"did not end within 0\.1 s"):
        git.run(["hash-object", "--stdin"], how=git.How(timeout_s=0.1), stdin=silence)
    with pytest.raises(GitFailed, match="transport 'file' not allowed"):
        git.run(["ls-remote", str(tmp_path / "person")])
