"""S16 (seed defect D19: one password for all): every command of the server on a foreign key, for the users broker and relay."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest
import redis

from include.local import valkey
from tests.conftest import free_port, wait_until

PASSWORD = "one-for-the-test"
# They name no key: what they may do is about the caller, the server, or the names of keys (the broker looks for old streams).
KEYLESS = {"relay": {"ping", "auth", "hello", "quit", "reset", "client|setname", "client|setinfo"}}
KEYLESS["broker"] = KEYLESS["relay"] | {"info", "scan", "xinfo|help", "xgroup|help"}
FOREIGN = {
    "broker": ("airflow:celery", "tasks:1", "atask:1:in", "xdead:1", "secrets"),
    "relay": ("dead:g1-a", "task:g1-a", "secrets", "task:g1-a:other", "xtask:g1-a:in", "task:g1-a:in:x"),
}
FOREIGN["loose"] = FOREIGN["relay"]


@pytest.fixture(scope="module")
def admin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[redis.Redis]:
    """A server with the users of an installation, and a user that may ask it what they may do."""
    folder = tmp_path_factory.mktemp("valkey")
    acl, port = folder / "users.acl", free_port()
    valkey.write_acl(acl, PASSWORD)
    with acl.open("a") as file:
        file.write(f"user admin on >{PASSWORD} ~* &* +@all\nuser loose on >{PASSWORD} ~* &* -@all +xadd +xread +ping +auth +hello\n")
    server = subprocess.Popen(valkey.command(valkey.find_binary(None), folder, port, acl), stdout=subprocess.DEVNULL)
    client = redis.Redis(port=port, username="admin", password=PASSWORD)
    client.response_callbacks.clear()  # the answers as they are

    def up() -> bool:
        try:
            return client.ping() is not None
        except redis.ConnectionError:
            return False

    wait_until("the server answers", up)
    yield client
    client.close()
    server.terminate()
    server.wait(20)


def commands(admin: redis.Redis) -> dict[str, int]:
    """Every command and subcommand that the server knows, with the number of words that it needs beside its name."""
    found: dict[str, int] = {}
    for entry in admin.execute_command("COMMAND"):
        for name, arity, *_ in entry[9] or [entry]:
            found[name.decode()] = abs(arity) - 1 - name.count(b"|")
    return found


def forms(name: str, words: int, key: str) -> list[list[str]]:
    """A command with the key in every place that one may stand in."""
    if name in ("xread", "xreadgroup"):  # without STREAMS in its place it names no key, and cannot be run
        group = ["GROUP", "g", "c"] if name == "xreadgroup" else []
        return [[name, *group, *form] for form in (["STREAMS", key, "0"], ["COUNT", "1", "STREAMS", "task:g1-a:in", key, "0", "0"])]
    plain = [[key] * count for count in range(words, words + 3)]
    counted = [["1", key], ["x", "1", key], ["0", "1", key], [key, "1", key]]  # numkeys first, as EVAL, ZUNION, BLMPOP, ZDIFFSTORE do
    more = [[key, "*", "e", "x"], [key, "MAXLEN", "0", "*", "e", "x"], [key, "g", "c", "0", "0-0"], [key, "g", "0"], [key, "10"]]
    return [name.split("|") + form for form in plain + counted + more]


def allowed(admin: redis.Redis, user: str) -> tuple[int, set[tuple[str, str]]]:
    """How many forms were tried, and which (command, key) the server would have run for this user."""
    pipeline, asked = admin.pipeline(transaction=False), []
    for name, words in commands(admin).items():
        for key in FOREIGN[user]:
            for form in forms(name, words, key):
                pipeline.execute_command("ACL", "DRYRUN", user, *form)
                asked.append((name, key))
    answers = pipeline.execute(raise_on_error=False)
    return len(asked), {pair for pair, answer in zip(asked, answers, strict=True) if answer == b"OK"}


@pytest.mark.parametrize("user", ["broker", "relay"])
def test_no_command_reaches_a_foreign_key(admin: redis.Redis, user: str, capsys: pytest.CaptureFixture[str]) -> None:
    tried, through = allowed(admin, user)
    with capsys.disabled():
        print(f"\n  S16, {user}: {len(commands(admin))} commands, {tried:,} forms on foreign keys, "
              f"{len({name for name, _ in through})} allowed, all without a key")  # fmt: skip
    assert tried > 20_000 and {name for name, _ in through} <= KEYLESS[user]


def test_control_plain_rights_reach_them(admin: redis.Redis) -> None:
    # The relay's commands with ~* as keys: the in stream becomes writable, every key readable.
    _, through = allowed(admin, "loose")
    assert {("xadd", "secrets"), ("xread", "secrets"), ("xadd", "dead:g1-a"), ("xadd", "task:g1-a:in:x")} <= through


def test_each_user_may_do_its_own_work_and_no_other_live(admin: redis.Redis) -> None:
    port = admin.connection_pool.connection_kwargs["port"]
    relay, broker = (redis.Redis(port=port, username=user, password=PASSWORD) for user in ("relay", "broker"))
    assert relay.xadd("task:g1-a:out", {"e": b"x"}) and broker.xadd("task:g1-a:in", {"e": b"y"})
    assert relay.xread({"task:g1-a:in": "0"}) and broker.xread({"task:g1-a:out": "0"})
    for forbidden in (
        lambda: relay.xadd("task:g1-a:in", {"e": b"forged"}),  # a grant to itself
        lambda: relay.xread({"task:g1-a:out": "0"}),
        lambda: relay.xrange("task:g1-a:in"),
        lambda: relay.delete("task:g1-a:out"),
        lambda: relay.keys("*"),
        lambda: relay.flushall(),
        lambda: relay.execute_command("ACL", "LIST"),
        lambda: broker.flushall(),
        lambda: broker.set("secrets", "x"),
        lambda: broker.get("task:g1-a:in"),
        lambda: broker.config_set("appendonly", "no"),
        lambda: broker.eval("return 1", 0),
        lambda: broker.execute_command("ACL", "SETUSER", "relay", "allkeys"),
        lambda: redis.Redis(port=port).ping(),
    ):
        with pytest.raises((redis.exceptions.NoPermissionError, redis.AuthenticationError)):
            forbidden()
    assert [fields for _, fields in broker.xrange("task:g1-a:in")] == [{b"e": b"y"}]
