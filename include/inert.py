"""Make text inert: what a model, a worker or a repository wrote, shown or stored where it may only be read. Pure.

Whoever shows such text calls this; what is meant for a program (``--json``) stays exact, JSON escapes it.
"""

from __future__ import annotations

import re
from typing import Any

MARK = "\ufffd"
"""Stands where characters were that cannot be seen, or that act on whoever shows them: many in a row are one mark."""
_UNSEEN = "\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180d\u180f\u2800\u3164\ufe00-\ufe0d\uffa0\U000e0100-\U000e01ef"
"""Letters and marks that Unicode calls printable, and that nobody sees (two of the selectors, for emoji, stay)."""
_HIDDEN = re.compile(f"[{_UNSEEN}]")
_MARKS = re.compile(f"{MARK}+")
_ENDS = re.compile("\r\n?|[\n\x0b\x0c\x85\u2028\u2029]")
_TRAILER = re.compile(r"[\w-]+\s*[:=#]|---|#|\(cherry picked|diff |Index: |Conflicts:", re.IGNORECASE)
"""How a line begins that a reader of commit messages may take for one of its own: a trailer, a divider, a comment."""


def line(text: str) -> str:
    """Make one line of a text: each white space is a blank, and controls, format characters and lone surrogates are ``MARK``."""
    if not text.isprintable():
        text = "".join(each if each.isprintable() else " " if each.isspace() else MARK for each in text)
    return _MARKS.sub(MARK, _HIDDEN.sub(MARK, text))


def words(text: str) -> str:
    """Make one line of a text, with one blank between two words and none around them."""
    return " ".join(line(text).split())


def lines(text: str) -> str:
    """Keep a text's line breaks, and make each of its lines inert."""
    return "\n".join(map(line, _ENDS.split(text)))


def short(text: str, most: int) -> str:
    """Make one line of a text, as ``words``, of at most so many characters: the middle goes, beginning and end stay."""
    said = words(text)
    end = most // 3
    return said if len(said) <= most else f"{said[: most - end - 3].rstrip()} … {said[-end:].lstrip()}"


def value(given: Any) -> Any:
    """Make every text in a value of JSON inert; line breaks stay."""
    if isinstance(given, str):
        return lines(given)
    if isinstance(given, (list, tuple)):
        return [value(each) for each in given]
    if isinstance(given, dict):
        return {line(key) if isinstance(key, str) else key: value(each) for key, each in given.items()}
    return given


def commit_message(subject: str, body: str, trailers: dict[str, str]) -> str:
    """Write a commit message whose only trailers are these, whatever subject and body say.

    Args:
        subject: becomes one line.
        body: paragraphs; a line of it that looks like a trailer, a divider or a comment is set in by two blanks.
        trailers: written as the last paragraph, ``Name: value``.
    """
    subject = words(subject) or "(no title)"
    if subject.partition(":")[0].strip().lower() in {name.lower() for name in trailers} or subject.startswith(("#", "---")):
        subject = f'"{subject}"'
    told = (each.rstrip() for each in lines(body).split("\n"))
    paragraphs = "\n".join(f"  {each}" if _TRAILER.match(each) else each for each in told).strip("\n")
    last = "".join(f"{words(name)}: {words(value)}\n" for name, value in trailers.items())
    return "\n\n".join(part for part in (subject, paragraphs, last) if part)
