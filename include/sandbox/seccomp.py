"""Compile ``seccomp.json`` into the classic BPF program that bubblewrap loads; Docker takes the JSON as it is.

Arguments are compared in their low 32 bits, which is what the kernel looks at for each of the calls with conditions.
"""

from __future__ import annotations

import json
import platform
import struct
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from include.errors import SandboxFailed
from include.sandbox.profile import seccomp_text

_AUDIT_ARCH: Final = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_LOAD, _AND, _JUMP_EQ, _RETURN = 0x20, 0x54, 0x15, 0x06
_NR, _ARCH, _ARGS = 0, 4, 16  # offsets in struct seccomp_data
_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000

Instruction = tuple[int, int, int, int]


@lru_cache(maxsize=1)
def program() -> bytes:
    """The filter for this machine.

    Raises:
        SandboxFailed: this processor architecture has no table in ``syscalls.json``.
    """
    machine = platform.machine()
    tables = json.loads((Path(__file__).parent / "syscalls.json").read_text())
    if machine not in tables:
        raise SandboxFailed(f"There is no system call table for the processor {machine}. Use the Docker engine on this machine.")
    return b"".join(
        struct.pack("=HBBI", *instruction) for instruction in compile_profile(json.loads(seccomp_text()), machine, tables[machine])
    )


def compile_profile(profile: dict[str, Any], machine: str, numbers: dict[str, int]) -> list[Instruction]:
    """Turn a profile of Docker's format into instructions: wrong architecture dies, what no rule allows gets EPERM."""
    out: list[Instruction] = [(_LOAD, 0, 0, _ARCH), (_JUMP_EQ, 1, 0, _AUDIT_ARCH[machine]), (_RETURN, 0, 0, _KILL)]
    for rule in profile["syscalls"]:
        for name in rule["names"]:
            if name in numbers:  # x32 calls have another bit set and equal none of these
                out += _rule(numbers[name], rule)
    return [*out, (_RETURN, 0, 0, _ERRNO | profile["defaultErrnoRet"])]


def _rule(number: int, rule: dict[str, Any]) -> list[Instruction]:
    verdict = _ALLOW if rule["action"] == "SCMP_ACT_ALLOW" else _ERRNO | rule["errnoRet"]
    body: list[Instruction] = [(_RETURN, 0, 0, verdict)]
    for condition in reversed(rule.get("args", [])):
        body = _condition(condition, len(body)) + body
    return [(_LOAD, 0, 0, _NR), (_JUMP_EQ, 0, len(body), number), *body]


def _condition(condition: dict[str, Any], rest: int) -> list[Instruction]:
    load: Instruction = (_LOAD, 0, 0, _ARGS + 8 * condition["index"])
    if condition["op"] == "SCMP_CMP_EQ":
        return [load, (_JUMP_EQ, 0, rest, condition["value"])]
    if condition["op"] == "SCMP_CMP_NE":
        return [load, (_JUMP_EQ, rest, 0, condition["value"])]
    return [load, (_AND, 0, 0, condition["value"]), (_JUMP_EQ, 0, rest, condition["valueTwo"])]
