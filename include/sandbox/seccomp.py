"""Compile ``seccomp.json`` into the classic BPF program that bubblewrap loads; Docker takes the JSON as it is.

Arguments are compared in their low 32 bits, which is what the kernel looks at for each of the calls with conditions.
"""

from __future__ import annotations

import json
import platform
import struct
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import ConfigDict
from pydantic.alias_generators import to_camel

from include.errors import SandboxFailed
from include.frozen import Frozen
from include.sandbox.profile import seccomp_text

_AUDIT_ARCH: Final = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_LOAD, _AND, _JUMP_EQ, _RETURN = 0x20, 0x54, 0x15, 0x06
_NR, _ARCH, _ARGS = 0, 4, 16  # offsets in struct seccomp_data
_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000

Instruction = tuple[int, int, int, int]


class _Docker(Frozen):
    model_config = ConfigDict(alias_generator=to_camel)


class Condition(_Docker):
    """What an argument of a system call must be."""

    index: int
    op: Literal["SCMP_CMP_EQ", "SCMP_CMP_NE", "SCMP_CMP_MASKED_EQ"]
    value: int
    value_two: int = 0


class Rule(_Docker):
    """What becomes of some system calls whose arguments meet all conditions."""

    names: tuple[str, ...]
    action: Literal["SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO"]
    errno_ret: int = 0
    args: tuple[Condition, ...] = ()


class Profile(_Docker):
    """A profile in Docker's format, as far as ours uses it."""

    default_action: Literal["SCMP_ACT_ERRNO"]
    default_errno_ret: int
    arch_map: tuple[dict[str, Any], ...]
    syscalls: tuple[Rule, ...]


@lru_cache(maxsize=1)
def program() -> bytes:
    """Compile the filter for this machine.

    Raises:
        SandboxFailed: this processor architecture has no table in ``syscalls.json``.
    """
    machine = platform.machine()
    tables: dict[str, dict[str, int]] = json.loads((Path(__file__).parent / "syscalls.json").read_text())
    if machine not in tables:
        raise SandboxFailed(f"There is no system call table for the processor {machine}. Use the Docker engine on this machine.")
    profile = Profile.model_validate_json(seccomp_text())
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in compile_profile(profile, machine, tables[machine]))


def compile_profile(profile: Profile, machine: str, numbers: dict[str, int]) -> list[Instruction]:
    """Turn a profile into instructions: wrong architecture dies, what no rule allows gets EPERM."""
    out: list[Instruction] = [(_LOAD, 0, 0, _ARCH), (_JUMP_EQ, 1, 0, _AUDIT_ARCH[machine]), (_RETURN, 0, 0, _KILL)]
    for rule in profile.syscalls:
        for name in rule.names:
            if name in numbers:  # x32 calls have another bit set and equal none of these
                out += _rule(numbers[name], rule)
    return [*out, (_RETURN, 0, 0, _ERRNO | profile.default_errno_ret)]


def _rule(number: int, rule: Rule) -> list[Instruction]:
    verdict = _ALLOW if rule.action == "SCMP_ACT_ALLOW" else _ERRNO | rule.errno_ret
    body: list[Instruction] = [(_RETURN, 0, 0, verdict)]
    for condition in reversed(rule.args):
        body = _condition(condition, len(body)) + body
    return [(_LOAD, 0, 0, _NR), (_JUMP_EQ, 0, len(body), number), *body]


def _condition(condition: Condition, rest: int) -> list[Instruction]:
    load: Instruction = (_LOAD, 0, 0, _ARGS + 8 * condition.index)
    if condition.op == "SCMP_CMP_EQ":
        return [load, (_JUMP_EQ, 0, rest, condition.value)]
    if condition.op == "SCMP_CMP_NE":
        return [load, (_JUMP_EQ, rest, 0, condition.value)]
    return [load, (_AND, 0, 0, condition.value), (_JUMP_EQ, 0, rest, condition.value_two)]
