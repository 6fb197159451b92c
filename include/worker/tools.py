"""The tools: a call by the model goes in, a result for the model comes out. Never an exception, whatever the arguments.

Each tool is a predefined function; there is no shell. A refused call says what to do instead. What a tool did is told to people by
milestones, and to the broker by nothing: the verifier looks for itself.
"""

from __future__ import annotations

import contextlib
import difflib
import json
import os
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

from include.worker import child, pytest_report, search
from include.worker.child import Bounds
from include.worker.conversation import Conversation
from include.worker.errors import Cancelled, GitRefused, NoAnswer, NotSealed, ToolRefused
from include.worker.files import Tree
from include.worker.git import Repository
from include.worker.heartbeat import Heart
from include.worker.paths import Paths
from include.worker.pytest_report import RunReport
from include.worker.seal import Policy
from include.worker.search import MAX_MATCHES
from include.worker.tool_definitions import TOOLS, Argument, Tool

MAX_RESULT_BYTES = 32 * 1024
MAX_LISTED = 1000
SEARCH_TIMEOUT_S = 10
_KNOWN: dict[str, Tool] = {tool.name: tool for tool in TOOLS}


class Result(NamedTuple):
    """What the model reads; ``is_error`` says that nothing was done."""

    text: str
    is_error: bool = False


class Tools:
    """The tools of one attempt.

    Args:
        paths: the sandbox's places; the work tree is cloned already.
        conversation: for questions, artifacts and the lease's capabilities.
        heartbeat: for milestones.
        test_timeout_s: seconds a test run may take.
    """

    def __init__(self, paths: Paths, conversation: Conversation, heartbeat: Heart, test_timeout_s: int) -> None:
        self.summary: str | None = None
        self._paths, self._conversation, self._heartbeat = paths, conversation, heartbeat
        self._test_timeout_s = test_timeout_s
        self._tree = Tree(paths.repo, paths.incoming)
        self._repository = Repository(paths)
        self._written: set[str] = set()
        self._tools: dict[str, Callable[..., str]] = {name: getattr(self, f"_{name}") for name in _KNOWN}

    def run(self, name: object, arguments: object) -> Result:
        """Do one call.

        Raises:
            Cancelled: the attempt was cancelled while the tool waited.
        """
        try:
            given = check_arguments(name, arguments)
            self._heartbeat.now("working", f"{name} {given.get('path', '')}".strip())
            return Result(self._tools[str(name)](**given))
        except (ToolRefused, GitRefused, NotSealed, NoAnswer) as error:
            return Result(str(error), is_error=True)
        except OSError as error:
            return Result(f"{name} could not be done: {error.strerror or error}. Try something smaller, or another way.", is_error=True)

    def uncommitted(self) -> list[str]:
        """Files that were written and would be lost."""
        return self._repository.uncommitted(sorted(self._written)) if self._written else []

    # -- one method a tool, by its public name -------------------------------------------------------------------------

    def _read_file(self, path: str) -> str:
        return _text(path, self._tree.read(path))

    def _write_file(self, path: str, content: str) -> str:
        return self._store(path, content)

    def _edit_file(self, path: str, old: str, new: str) -> str:
        text = _text(path, self._tree.read(path))
        if not old:
            raise ToolRefused(f"{path}: the old text is empty. Give the passage to replace, or use write_file.")
        if (count := text.count(old)) != 1:
            remedy = "Read the file again and copy the passage exactly" if count == 0 else "Give more of what stands around it"
            raise ToolRefused(f"{path}: the old text occurs {count} times, not once. {remedy}.")
        return self._store(path, text.replace(old, new))

    def _list_files(self, path: str) -> str:
        files: list[str] = []
        more = False
        for name, about in self._tree.walk(path):
            if len(files) == MAX_LISTED:
                more = True
                break
            files.append(f"{name} ({about.st_size} bytes)")
        return _json({"files": files, "more": more})

    def _search_files(self, pattern: str) -> str:
        paths = self._paths
        command = [os.path.realpath(sys.executable), "-I", "-S", str(paths.program), "search", str(paths.repo)]
        policy = Policy(read=(str(paths.repo), str(paths.toolbox)), cpu_s=SEARCH_TIMEOUT_S)
        bounds = Bounds(policy, SEARCH_TIMEOUT_S, paths.repo, keep=8 * 1024 * 1024)
        finished = child.run(paths, bounds, command, stdin=pattern.encode())
        if finished.exit_code == 2:
            raise ToolRefused(f"not a regular expression: {finished.err.decode(errors='replace').strip()}. Escape what is meant literally.")
        if finished.exit_code == 1:
            raise ToolRefused(f"the search failed: {finished.err.decode(errors='replace').strip()[-300:]}. Use read_file instead.")
        if finished.exit_code != 0:
            raise ToolRefused(f"the search did not end within {SEARCH_TIMEOUT_S} s. Use a simpler pattern.")
        found = search.answered(finished.out)
        note = {"note": f"only the first {MAX_MATCHES} are shown; use a narrower pattern"} if found.more else {}
        return _json(found._asdict() | note)

    def _run_tests(self) -> str:
        self._need("test")
        self._heartbeat.milestone("working", "runs the tests")
        report = pytest_report.run(self._paths, self._test_timeout_s, self._conversation.cancelled)
        if self._conversation.cancelled.is_set():
            raise Cancelled(self._conversation.cancel_reason)
        counts = _counts(report)
        self._heartbeat.milestone("working", _in_words(report))
        self._send_artifact("test_result", counts)
        return _json(counts | {"output": report.output[-8000:]})

    def _git_commit(self, message: str) -> str:
        self._need("git-commit")
        if not message.strip():
            raise ToolRefused("message is empty. Say in a line what the commit does.")
        commit = self._repository.commit(sorted(self._written), message)
        if commit is None:
            raise ToolRefused("nothing to commit: no file that you wrote differs from the last commit. Write or edit a file first.")
        files = len(self._written)
        self._written.clear()
        with contextlib.suppress(GitRefused, OSError):  # for a further attempt, if this one is lost; the end hands in anyway
            self._repository.keep()
        self._heartbeat.milestone("working", f"committed {commit[:10]}: {message.strip().splitlines()[0]}")
        return _json({"commit": commit, "written_files": files})

    def _ask_master(self, question: str, options: list[str] | None = None, context: str = "", urgency: str = "normal") -> str:
        if len(question) > 4000 or len(context) > 8000 or len(options or []) > 20:
            raise ToolRefused("too long: a question has at most 4,000 characters, its context 8,000, and there are at most 20 options.")
        self._heartbeat.milestone("blocked", f"asks: {question}")
        payload = {"question": question, "options": options or [], "context": context, "urgency": urgency}
        try:
            reply = self._conversation.ask("question", payload, self._conversation.timing.question)
        except NoAnswer as error:
            raise ToolRefused(f"{error}. Decide yourself, by what the task and the repository say, and go on.") from None
        finally:
            self._heartbeat.now("working", "goes on after a question")
        return _json({"answer": reply.payload.get("answer", ""), "decided_by": reply.payload.get("decidedBy", "")})

    def _finish(self, summary: str) -> str:
        self.summary = summary
        return "The task ends here."

    # -- helpers ------------------------------------------------------------------------------------------------------

    def _store(self, path: str, content: str) -> str:
        plain = self._tree.write(path, _utf8(content))
        self._written.add(plain)
        self._heartbeat.milestone("working", f"wrote {plain}")
        return _json({"written": plain, "bytes": len(content.encode())})

    def _need(self, capability: str) -> None:
        if capability not in self._conversation.capabilities:
            granted = ", ".join(sorted(self._conversation.capabilities)) or "none"
            raise ToolRefused(f"the lease has no capability {capability!r} (it has: {granted}). Go on without, or ask_master.")

    def _send_artifact(self, kind: str, data: dict[str, Any]) -> None:
        try:
            self._conversation.ask("artifact", {"artifactType": kind, "data": data}, self._conversation.timing.receipt)
        except NoAnswer:
            return  # a hint, and it is sent again with the ending


def check_arguments(name: object, arguments: object) -> dict[str, Any]:
    """Check the arguments of a call; returns them as the tool's schema has them.

    Raises:
        ToolRefused: no such tool, or an argument is missing, unknown or of the wrong type.
    """
    tool = _KNOWN.get(name) if isinstance(name, str) else None
    if tool is None:
        near = difflib.get_close_matches(str(name), _KNOWN, 1)
        raise ToolRefused(f"there is no tool {str(name)[:80]!r}. {f'Did you mean {near[0]}? ' if near else ''}Tools: {', '.join(_KNOWN)}.")
    wanted = f"{name} takes {', '.join(tool.arguments) or 'no arguments'}"
    if not isinstance(arguments, dict):
        raise ToolRefused(f"the arguments are no object. {wanted}.")
    if unknown := [key for key in arguments if key not in tool.arguments]:
        raise ToolRefused(f"{str(unknown[0])[:80]!r} is no argument of it. {wanted}.")
    if missing := [key for key, argument in tool.arguments.items() if argument.required and key not in arguments]:
        raise ToolRefused(f"{missing[0]!r} is missing. {wanted}.")
    for key, value in arguments.items():
        _check_type(tool.name, key, tool.arguments[key], value)
    return arguments


def cap(text: str, limit: int) -> str:
    """Cut a text so that it takes at most about ``limit`` bytes as JSON; says so at the cut."""
    size = len(json.dumps(text, ensure_ascii=False).encode("utf-8", errors="replace"))
    if size <= limit:
        return text
    while text and len(json.dumps(text, ensure_ascii=False).encode("utf-8", errors="replace")) > limit:
        text = text[: int(len(text) * 0.9)]
    return f"{text}\n[cut here: the whole has {size} bytes, a result at most {limit}]"


def _check_type(tool: str, key: str, argument: Argument, value: object) -> None:
    if argument.many:
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise ToolRefused(f"{tool}: {key} must be a list of texts, not {type(value).__name__}.")
    elif not isinstance(value, str):
        raise ToolRefused(f"{tool}: {key} must be a text, not {type(value).__name__}.")
    elif argument.choices and value not in argument.choices:
        raise ToolRefused(f"{tool}: {key} must be one of {', '.join(argument.choices)}.")


def _counts(report: RunReport) -> dict[str, Any]:
    """The report without the outcome of each test: that could be larger than a message."""
    counts: dict[str, Any] = {outcome: report.count(outcome) for outcome in ("passed", "failed", "error", "skipped")}
    not_green = report.names("failed", "error")
    return counts | {"exit_code": report.exit_code, "duration_ms": report.duration_ms, "problem": report.problem, "not_green": not_green}


def _in_words(report: RunReport) -> str:
    if report.problem:
        return f"ran the tests: {report.problem}"
    return (
        f"ran {len(report.tests)} tests: {report.count('passed')} passed, {report.count('failed')} failed, {report.count('error')} errors"
    )


def _text(path: str, content: bytes) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        raise ToolRefused(f"{path} is not UTF-8 text; tools handle text files only.") from None


def _utf8(content: str) -> bytes:
    try:
        return content.encode("utf-8")
    except UnicodeEncodeError:
        raise ToolRefused("the content is not valid Unicode (a lone surrogate). Write it without.") from None


def _json(value: dict[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False, indent=1)
