"""seccomp: which system calls a sealed process may make. A deny-list on top of the sandbox's own profile.

The point that nothing else closes: no unix socket can be made, so the relay's cannot be reached. ``socketpair`` stays (asyncio and
multiprocessing need it), for unix streams and sequenced packets only: a datagram pair can be re-connected to a path, and the kernel makes
one of ``SOCK_RAW`` too.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct

from include.worker import syscalls

# name: number on x86_64, on aarch64 (-1: does not exist there)
_DENIED = {
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "pidfd_getfd": (438, 438),
    "kcmp": (312, 272), "io_uring_setup": (425, 425), "io_uring_enter": (426, 426), "io_uring_register": (427, 427),
    "add_key": (248, 217), "request_key": (249, 218), "keyctl": (250, 219), "bpf": (321, 280),
    "perf_event_open": (298, 241), "userfaultfd": (323, 282), "fanotify_init": (300, 262),
    "open_by_handle_at": (304, 265), "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41),
    "chroot": (161, 51), "open_tree": (428, 428), "move_mount": (429, 429), "fsopen": (430, 430),
    "fsconfig": (431, 431), "fsmount": (432, 432), "fspick": (433, 433), "mount_setattr": (442, 442),
    "unshare": (272, 97), "setns": (308, 268), "init_module": (175, 105), "finit_module": (313, 273),
    "delete_module": (176, 106), "kexec_load": (246, 104), "kexec_file_load": (320, 294), "reboot": (169, 142),
    "swapon": (167, 224), "swapoff": (168, 225), "syslog": (103, 116), "quotactl": (179, 60), "acct": (163, 89),
    "settimeofday": (164, 170), "clock_settime": (227, 112), "clock_adjtime": (305, 266), "adjtimex": (159, 171),
    "ioperm": (173, -1), "iopl": (172, -1), "sethostname": (170, 161), "setdomainname": (171, 162),
    "vhangup": (153, 58),
}  # fmt: skip
_MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
_CLONE, _CLONE3, _SOCKET, _SOCKETPAIR, _IOCTL = (56, 220), (435, 435), (41, 198), (53, 199), (16, 29)
_NEW_NAMESPACES = 0x7E020000
_FAMILIES = (2, 10, 16)  # AF_INET, AF_INET6, AF_NETLINK; the module socket would cost each sealed child 4 ms
_UNIX = 1  # AF_UNIX, the one family of a pair
_CONNECTED = (1, 5)  # SOCK_STREAM, SOCK_SEQPACKET: what is connected once stays so
_TYPE_BITS = 0xF  # the rest of the argument are flags
_TERMINAL_INPUT = (0x5412, 0x541C)  # TIOCSTI, TIOCLINUX

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _AND, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x54, 0x06
_ALLOW, _ERRNO, _KILL = 0x7FFF0000, 0x00050000, 0x80000000
_NR, _ARCH, _ARG0, _ARG1 = 0, 4, 16, 24
_MODE_FILTER = 2

Instruction = tuple[int, int, int, int]


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))


def machine() -> str:
    """Name the architecture that the filter must be made for."""
    return os.uname().machine


def restrict() -> None:
    """Put the filter on this process and its children. Needs no-new-privs.

    Raises:
        OSError: the kernel refused, or the architecture has no table here.
    """
    if machine() not in _MACHINES:
        raise OSError(errno.ENOSYS, f"no system call table for {machine()}")
    code = b"".join(struct.pack("=HBBI", *instruction) for instruction in program(*_MACHINES[machine()]))
    buffer = ctypes.create_string_buffer(code, len(code))
    loaded = _Program(len(code) // 8, ctypes.cast(buffer, ctypes.c_void_p).value)
    syscalls.prctl(syscalls.SET_SECCOMP, _MODE_FILTER, ctypes.byref(loaded))


def program(column: int, architecture: int) -> list[Instruction]:
    """Make the filter for one architecture.

    Args:
        column: 0 for x86_64, 1 for aarch64.
        architecture: its AUDIT_ARCH number; another one (32-bit calls) ends the process.
    """
    code = [(_LOAD, 0, 0, _ARCH), (_EQUAL, 1, 0, architecture), _answer(_KILL), (_LOAD, 0, 0, _NR)]
    if column == 0:
        code += [(_AT_LEAST, 0, 1, 0x40000000), _refuse(errno.EPERM)]  # the x32 numbers would pass by the table
    for numbers in _DENIED.values():
        if numbers[column] >= 0:
            code += _rule(numbers[column], [_refuse(errno.EPERM)])
    code += _rule(_CLONE3[column], [_refuse(errno.ENOSYS)])  # its flags lie in memory; libc then falls back to clone
    code += _rule(_CLONE[column], _refuse_if(_ANY_BIT, _ARG0, (_NEW_NAMESPACES,)))
    code += _rule(_IOCTL[column], _refuse_if(_EQUAL, _ARG1, _TERMINAL_INPUT))
    code += _rule(_SOCKET[column], [(_LOAD, 0, 0, _ARG0), *_allow_only(_FAMILIES)])
    connected = [(_LOAD, 0, 0, _ARG1), (_AND, 0, 0, _TYPE_BITS), *_allow_only(_CONNECTED)]
    code += _rule(_SOCKETPAIR[column], [(_LOAD, 0, 0, _ARG0), (_EQUAL, 1, 0, _UNIX), _refuse(errno.EPERM), *connected])
    return [*code, _answer(_ALLOW)]


def _answer(value: int) -> Instruction:
    return (_RETURN, 0, 0, value)


def _refuse(code: int) -> Instruction:
    return _answer(_ERRNO | code)


def _rule(number: int, body: list[Instruction]) -> list[Instruction]:
    """``body`` decides if the call has this number; every way through it returns."""
    return [(_EQUAL, 0, len(body), number), *body]


def _refuse_if(test: int, argument: int, values: tuple[int, ...]) -> list[Instruction]:
    body: list[Instruction] = [(_LOAD, 0, 0, argument)]
    for value in values:
        body += [(test, 0, 1, value), _refuse(errno.EPERM)]
    return [*body, _answer(_ALLOW)]


def _allow_only(values: tuple[int, ...]) -> list[Instruction]:
    """Refuse the call unless the argument that is loaded is one of these."""
    body: list[Instruction] = []
    for value in values:
        body += [(_EQUAL, 0, 1, value), _answer(_ALLOW)]
    return [*body, _refuse(errno.EPERM)]
