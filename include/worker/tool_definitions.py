"""The tools of a worker as the model sees them (Messages API). Names and arguments are public: playbooks and policies name them.

Plain data, so that the broker can hand it to the model and the worker can check calls by it.
"""

from __future__ import annotations

from typing import Any, NamedTuple


class Argument(NamedTuple):
    """An argument of a tool: a text, or a list of texts; one of the choices, if there are such."""

    description: str
    many: bool = False
    choices: tuple[str, ...] = ()
    required: bool = True

    def schema(self) -> dict[str, Any]:
        """Make its JSON schema."""
        kind: dict[str, Any] = {"type": "array", "items": {"type": "string"}} if self.many else {"type": "string"}
        return kind | ({"enum": list(self.choices)} if self.choices else {}) | {"description": self.description}


class Tool(NamedTuple):
    """A tool, and its arguments by their names."""

    name: str
    description: str
    arguments: dict[str, Argument]

    def definition(self) -> dict[str, Any]:
        """Make its definition in the form of the Messages API."""
        properties = {name: argument.schema() for name, argument in self.arguments.items()}
        required = [name for name, argument in self.arguments.items() if argument.required]
        schema = {"type": "object", "properties": properties, "required": required, "additionalProperties": False}
        return {"name": self.name, "description": self.description, "input_schema": schema}


_PATH = Argument("Path from the repository's root, for example src/app.py.")

TOOLS: tuple[Tool, ...] = (
    Tool("read_file", "Read a text file of the repository. The result shows at most its first 32 KiB.", {"path": _PATH}),
    Tool(
        "write_file",
        "Make or replace a text file. Folders above it are made. To change a part of a file, use edit_file.",
        {"path": _PATH, "content": Argument("The whole content of the file.")},
    ),
    Tool(
        "edit_file",
        "Replace one passage of a text file. The old text must occur exactly once.",
        {
            "path": _PATH,
            "old": Argument("The passage as it is now, with enough around it to be unique."),
            "new": Argument("What stands there afterwards."),
        },
    ),
    Tool("list_files", "List all files below a folder.", {"path": Argument("Folder from the repository's root; . is the root.")}),
    Tool(
        "search_files",
        "Find lines in all text files by a Python regular expression.",
        {"pattern": Argument("A Python regular expression.")},
    ),
    Tool("run_tests", "Run the repository's tests with pytest. Says how many passed, which failed, and the end of the output.", {}),
    Tool(
        "git_commit",
        "Commit the files that you wrote since the last commit. Only what is committed is handed in.",
        {"message": Argument("What the commit does: a short first line, then why if that is not plain.")},
    ),
    Tool(
        "ask_master",
        "Ask about a decision that goes beyond your task. Do not ask what the repository can tell you.",
        {
            "question": Argument("The question."),
            "options": Argument("Answers to choose from, if there are such; at most 20.", many=True, required=False),
            "context": Argument("What one must know to answer.", required=False),
            "urgency": Argument("blocking: you cannot go on without the answer.", choices=("blocking", "normal"), required=False),
        },
    ),
    Tool(
        "finish",
        "End the task. Commit before: what is not committed is lost.",
        {"summary": Argument("What was done, in a few sentences.")},
    ),
)

TOOL_DEFINITIONS: list[dict[str, Any]] = [tool.definition() for tool in TOOLS]
"""All tools in the form of the Messages API."""

TOOL_NAMES = tuple(tool.name for tool in TOOLS)
