"""The tools of a worker as the model sees them (Messages API). Names and arguments are public: playbooks and policies name them.

Plain data, so that the broker can hand it to the model and the worker can check calls by it.
"""

from __future__ import annotations

from typing import Any


def _tool(name: str, description: str, required: dict[str, Any], optional: dict[str, Any] | None = None) -> dict[str, Any]:
    schema = {"type": "object", "properties": required | (optional or {}), "required": list(required), "additionalProperties": False}
    return {"name": name, "description": description, "input_schema": schema}


def _text(description: str) -> dict[str, Any]:
    return {"type": "string", "description": description}


_PATH = _text("Path from the repository's root, for example src/app.py.")

TOOL_DEFINITIONS: list[dict[str, Any]] = [
    _tool("read_file", "Read a text file of the repository. The result shows at most its first 32 KiB.", {"path": _PATH}),
    _tool(
        "write_file",
        "Make or replace a text file. Folders above it are made. To change a part of a file, use edit_file.",
        {"path": _PATH, "content": _text("The whole content of the file.")},
    ),
    _tool(
        "edit_file",
        "Replace one passage of a text file. The old text must occur exactly once.",
        {
            "path": _PATH,
            "old": _text("The passage as it is now, with enough around it to be unique."),
            "new": _text("What stands there afterwards."),
        },
    ),
    _tool("list_files", "List all files below a folder.", {"path": _text("Folder from the repository's root; . is the root.")}),
    _tool(
        "search_files", "Find lines in all text files by a Python regular expression.", {"pattern": _text("A Python regular expression.")}
    ),
    _tool("run_tests", "Run the repository's tests with pytest. Says how many passed, which failed, and the end of the output.", {}),
    _tool(
        "git_commit",
        "Commit the files that you wrote since the last commit. Only what is committed is handed in.",
        {"message": _text("What the commit does: a short first line, then why if that is not plain.")},
    ),
    _tool(
        "ask_master",
        "Ask about a decision that goes beyond your task. Do not ask what the repository can tell you.",
        {"question": _text("The question.")},
        {
            "options": {
                "type": "array",
                "items": {"type": "string"},
                "description": "Answers to choose from, if there are such; at most 20.",
            },
            "context": _text("What one must know to answer."),
            "urgency": {"type": "string", "enum": ["blocking", "normal"], "description": "blocking: you cannot go on without the answer."},
        },
    ),
    _tool(
        "finish", "End the task. Commit before: what is not committed is lost.", {"summary": _text("What was done, in a few sentences.")}
    ),
]

TOOL_NAMES = tuple(str(tool["name"]) for tool in TOOL_DEFINITIONS)
