"""A person's repository and a worker's clone, made with plain git, as people and workers make them."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from include.repository import bundles, mirror
from include.settings import Settings

_ENVIRONMENT = {
    "PATH": os.environ["PATH"], "HOME": "/nonexistent", "GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_AUTHOR_NAME": "Ada", "GIT_AUTHOR_EMAIL": "ada@example.org", "GIT_COMMITTER_NAME": "Ada", "GIT_COMMITTER_EMAIL": "ada@example.org",
    "GIT_AUTHOR_DATE": "1700000000 +0000", "GIT_COMMITTER_DATE": "1700000000 +0000",
}  # fmt: skip


class Repo:
    """A work tree."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def git(self, *args: str, stdin: bytes = b"") -> str:
        done = subprocess.run(["git", *args], cwd=self.path, input=stdin, env=_ENVIRONMENT, capture_output=True, check=False)
        assert done.returncode == 0, f"git {args}: {done.stderr.decode()}"
        return done.stdout.decode(errors="surrogateescape").strip()

    def write(self, files: dict[str, str]) -> None:
        for name, content in files.items():
            (self.path / name).parent.mkdir(parents=True, exist_ok=True)
            (self.path / name).write_text(content)

    def commit(self, files: dict[str, str], message: str = "work") -> str:
        self.write(files)
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", message)
        return self.tip()

    def tip(self, ref: str = "HEAD") -> str:
        return self.git("rev-parse", ref)

    def commit_tree(self, entries: list[tuple[str, bytes, str]], parent: str | None = None) -> str:
        """A commit of a tree written byte by byte, as no honest git would: (mode, name, object id)."""
        raw = b"".join(f"{mode} ".encode() + name + b"\0" + bytes.fromhex(oid) for mode, name, oid in entries)
        tree = self.git("hash-object", "-t", "tree", "-w", "--literally", "--stdin", stdin=raw)
        return self.git("commit-tree", tree, "-m", "evil", *(["-p", parent] if parent else []))

    def blob(self, content: bytes) -> str:
        return self.git("hash-object", "-w", "--stdin", stdin=content)


def make_person(path: Path, files: dict[str, str] | None = None, branch: str = "main") -> Repo:
    """A repository with one commit."""
    path.mkdir(parents=True)
    repo = Repo(path)
    repo.git("init", "--quiet", f"--initial-branch={branch}")
    repo.commit(files or {"a.py": "A = 1\n", "docs/a.md": "text\n"}, "first")
    return repo


def take_in(settings: Settings, person: Repo, branch: str = "main", name: str = "sample") -> tuple[Path, str]:
    """The mirror of a person's repository, and the branch's commit."""
    mirror.ensure_mirror(settings, name, str(person.path))
    return mirror.path_of(settings, name), mirror.fetch_base(settings, name, str(person.path), branch)


def make_worker(settings: Settings, the_mirror: Path, commit: str, path: Path) -> Repo:
    """A clone of a commit's bundle, on the branch ``task``."""
    bundle = bundles.export_bundle(settings, the_mirror, commit)
    path.parent.mkdir(parents=True, exist_ok=True)
    Repo(path.parent).git("clone", "--quiet", "--branch=airlock-base", str(bundle), str(path))
    worker = Repo(path)
    worker.git("checkout", "--quiet", "-b", "task")
    return worker


def hand_in(worker: Repo, file: Path) -> Path:
    """The bundle of what the worker committed."""
    worker.git("bundle", "create", "--quiet", str(file), "airlock-base..task")
    return file
