"""Which letters a new name or a message may hold: what a person sees must be what is there, on every file system. Pure."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

MAX_NAME_BYTES = 255
"""Longest name of one file or folder: what Linux, macOS and Windows hold alike."""
MAX_PATH_BYTES = 1_000
"""Longest path: macOS holds 1,024 bytes, with the folder that the repository lies in."""
_UNSEEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
# Letters and marks that show nothing, or a space: no category tells them.
_BLANK = re.compile("[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]")
_JOINERS = "\u200c\u200d"  # words of some languages, and families of emoji, are written with them
_LOOKS_LIKE = str.maketrans(
    "аеорсухіјѕԁһӏԛԝАВЕКМНОРСТУХІЈЅοινρΑΒΕΖΗΙΚΜΝΟΡΤΥΧօսոհ\u0261",
    "aeopcyxijsdhlqwABEKMHOPCTYXIJSoivpABEZHIKMNOPTYXounhg",
)
_SLASHES_AND_DOTS = re.compile("[\u2024\u2025\u2044\u2215\u29f8\ufe52\uff0e\uff0f\uff3c\u2216\u29f5\ufe68]")
_NOT_ON_WINDOWS = re.compile(r'[<>:"|?*\\]')
_DEVICES = frozenset({"con", "prn", "aux", "nul", "conin$", "conout$"} | {f"{port}{n}" for port in ("com", "lpt") for n in "123456789¹²³"})


@lru_cache(maxsize=200_000)
def key(name: bytes) -> str:
    """Fold a name to what a file system, or a person's eye, may take it for: two names of one folder must not share a key."""
    text = unicodedata.normalize("NFKC", name.decode("utf-8", errors="surrogateescape")).translate(_LOOKS_LIKE).casefold()
    return unicodedata.normalize("NFKC", text).translate(_LOOKS_LIKE).rstrip(". ")


def fault_of_name(name: str) -> str | None:
    """Say why a new name of a file or a folder is refused, in words that follow the name; None: it is fine."""
    for letter in name:
        if unicodedata.category(letter) in _UNSEEN:
            kind = "a control character" if unicodedata.category(letter) == "Cc" else "a character that is not seen"
            return f"holds {kind}, {_code(letter)}"
        if _BLANK.match(letter) or (letter.isspace() and letter != " "):
            return f"holds a character that is not seen, {_code(letter)}"
        if _SLASHES_AND_DOTS.match(letter):
            return f"holds {_code(letter)}, which looks like a slash or a dot"
    if not unicodedata.is_normalized("NFC", name):
        return "is not in the normal form NFC of Unicode, so that it can be written in two ways"
    if mixed := _mixed(name):
        return f"mixes alphabets in {mixed!r}, so that it looks like another name"
    return _not_everywhere(name)


def fault_of_text(text: str, allowed: str = "") -> str | None:
    """Say which letter of a message or of a person's name is refused; None: it is fine.

    Args:
        allowed: control characters that may be in it.
    """
    found = (
        letter
        for letter in text
        if letter not in allowed and letter not in _JOINERS and unicodedata.category(letter) in _UNSEEN - {"Co", "Cn"}
    )
    letter = next(found, None)
    return letter and f"holds {_code(letter)}, a control character or one that is not seen"


def _code(letter: str) -> str:
    return f"U+{ord(letter):04X}"


def _mixed(name: str) -> str | None:
    """Find a word of Latin letters in which another alphabet's look-alikes stand."""
    for word in re.findall(r"[^\W\d_]+", name):
        if any(letter.isascii() for letter in word) and word.translate(_LOOKS_LIKE) != word:
            return str(word)
    return None


def _not_everywhere(name: str) -> str | None:
    if found := _NOT_ON_WINDOWS.search(name):
        return f"holds {found[0]!r}, which Windows does not hold in a name"
    if name.endswith((" ", ".")):
        return "ends with a space or a dot, which Windows drops"
    if name.split(".", 1)[0].rstrip(" ").casefold() in _DEVICES:
        return "is the name of a device on Windows"
    if len(name.encode()) > MAX_NAME_BYTES:
        return f"has more than {MAX_NAME_BYTES} bytes"
    return None
