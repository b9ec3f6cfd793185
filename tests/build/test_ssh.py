"""The SSH server as clients meet it: who gets in, and what they may ask for."""

import asyncio
import socket
from typing import Any

import asyncssh
import pytest

from drycc.build import ssh
from drycc.build.session import Refused, parse_command
from drycc.build.ssh import load_host_key
from drycc.core import keys
from drycc.errors import Conflict, Unavailable
from tests.build.builder import WEB, Builder, connect

COMMAND = "git-receive-pack '/shop.git'"


async def test_ping_is_answered_and_everything_else_refused(builder: Builder) -> None:
    done = await builder.ssh("ping")
    assert (done.code, done.out, done.err) == (0, "pong", "")
    for words in (("anything",), ("ping; id",), ("git-receive-pack",), ("scp", "-t", "/"), ()):
        done = await builder.ssh(*words)
        assert (done.code, done.out) == (1, ""), words
        assert done.err.startswith(" !     "), words
    done = await builder.ssh("git-upload-pack", "'../../etc/passwd'")
    assert done.code == 1
    assert "expected the name of an app" in done.err


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("git-receive-pack 'shop.git'", ("git-receive-pack", "shop")),
        ("git-receive-pack '/shop.git'", ("git-receive-pack", "shop")),
        ("git receive-pack shop", ("git-receive-pack", "shop")),
        ("git upload-pack 'a-1.git'", ("git-upload-pack", "a-1")),
        ("git-upload-pack 'shop'", ("git-upload-pack", "shop")),
    ],
)
def test_commands_that_git_sends_are_understood(command: str, expected: tuple[str, str]) -> None:
    assert parse_command(command) == expected


@pytest.mark.parametrize(
    "command",
    [
        None,
        "",
        "git",
        "git push shop",
        "git-receive-pack",
        "git-receive-pack shop other",
        "git-receive-pack 'shop.git",
        "git-receive-pack ../shop.git",
        "git-receive-pack //shop",
        "git-receive-pack Shop",
        "git-receive-pack shop-",
        "git-receive-pack -shop",
        "git-receive-pack 'shop\n'",
        "git-receive-pack '$(id)'",
        "git-shell -c ls",
        "GIT-RECEIVE-PACK shop",
    ],
)
def test_all_other_commands_are_refused(command: str | None) -> None:
    with pytest.raises(Refused):
        parse_command(command)


async def test_an_unknown_key_is_refused_and_told_what_to_do(builder: Builder) -> None:
    key = asyncssh.generate_private_key("ssh-ed25519")
    key.write_private_key(builder.home / "nobody")
    (builder.home / "nobody").chmod(0o600)
    argv = ("ssh", "-F", "/dev/null", "-i", str(builder.home / "nobody"), "-p", str(builder.port))
    options = (
        "StrictHostKeyChecking=no",
        "UserKnownHostsFile=/dev/null",
        "IdentitiesOnly=yes",
        "BatchMode=yes",
    )
    words = [word for option in options for word in ("-o", option)]
    process = await asyncio.create_subprocess_exec(
        *argv, *words, "git@127.0.0.1", "ping", stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    _, said = await process.communicate()
    assert process.returncode == 255
    fingerprint = key.get_fingerprint("sha256")
    assert f"the key {fingerprint} is not known here; add it with: drycc keys add" in said.decode()
    assert "Permission denied (publickey)" in said.decode()


async def test_only_public_keys_open_the_door(builder: Builder) -> None:
    with pytest.raises(asyncssh.PermissionDenied):
        await asyncssh.connect(
            "127.0.0.1",
            builder.port,
            username="git",
            password="x",
            client_keys=None,
            known_hosts=None,
            config=[],
        )


async def test_each_key_is_looked_up_once_and_not_more_than_a_bound(
    builder: Builder, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    find_owner = keys.find_owner

    async def counting(db: Any, sha256: str) -> Any:
        asked.append(sha256)
        return await find_owner(db, sha256)

    monkeypatch.setattr(keys, "find_owner", counting)
    async with connect(builder):
        assert len(asked) == 1
    asked.clear()
    monkeypatch.setattr(ssh, "MOST_KEYS", 3)
    for number in range(5):
        asyncssh.generate_private_key("ssh-ed25519").write_private_key(builder.home / f"key{number}")
    with pytest.raises(asyncssh.PermissionDenied):
        async with connect(builder, *(f"key{number}" for number in range(5)), "ann"):
            pass
    assert len(asked) == 3


async def test_a_database_that_is_away_is_no_wrong_key(
    builder: Builder, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(db: Any, sha256: str) -> Any:
        raise Unavailable("the database does not answer, try again later")

    monkeypatch.setattr(keys, "find_owner", away)
    with pytest.raises(asyncssh.DisconnectError, match="the database does not answer"):
        async with connect(builder):
            pass


async def test_a_right_that_was_taken_away_counts_for_the_open_connection(builder: Builder) -> None:
    async with connect(builder) as connection:
        assert (await connection.run(COMMAND, input="0000")).returncode == 0
        await builder.deactivate("ann")
        done = await connection.run(COMMAND)
        assert done.returncode == 1
        assert "ERR this key is no longer accepted" in str(done.stdout)


async def test_gp06_the_channel_is_bytes(builder: Builder) -> None:
    async with connect(builder) as connection:
        process: asyncssh.SSHClientProcess[bytes] = await connection.create_process(COMMAND, encoding=None)
        assert (await process.stdout.read(4)).isalnum()
        process.stdin.write(b"\xe3\x81")
        await asyncio.sleep(0.05)
        process.stdin.write(b"\x82\xff")
        process.stdin.write_eof()
        done = await process.wait(timeout=10)
        assert done.returncode == 128
        assert isinstance(done.stderr, bytes)
        assert b"bad line length character" in done.stderr


async def test_nothing_but_commands_is_to_be_had(builder: Builder) -> None:
    async with connect(builder) as connection:
        with pytest.raises(asyncssh.ChannelOpenError):
            await connection.create_process("ping", term_type="xterm")
        with pytest.raises(asyncssh.ChannelOpenError):
            await connection.open_connection("127.0.0.1", builder.port)
        with pytest.raises(asyncssh.ChannelListenError):
            await connection.forward_remote_port("127.0.0.1", 0, "127.0.0.1", 1)
        with pytest.raises(asyncssh.ChannelOpenError):
            await connection.start_sftp_client()
        assert (await connection.run("ping")).stdout == "pong"


async def test_the_clients_environment_stays_outside(builder: Builder) -> None:
    """With `GIT_TRACE` git would write a file of the client's choice."""
    trace = builder.home / "trace"
    async with connect(builder) as connection:
        done = await connection.run(COMMAND, env={"GIT_TRACE": str(trace), "PATH": "/x"}, input="0000")
        assert done.returncode == 0
    assert not trace.exists()


async def test_connections_from_one_address_are_bounded(
    builder: Builder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ssh, "MOST_CONNECTIONS", 2)
    async with connect(builder), connect(builder):
        with pytest.raises((asyncssh.DisconnectError, OSError)):
            async with connect(builder):
                pass
    async with connect(builder) as connection:
        assert (await connection.run("ping")).stdout == "pong"


async def test_a_client_that_never_logs_in_is_dropped(
    idle_builder: Builder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ssh.TIMES, "login_timeout", 0.2)
    async with idle_builder.serving(), asyncio.timeout(5):
        reader, writer = await asyncio.open_connection("127.0.0.1", idle_builder.port)
        assert (await reader.readline()).startswith(b"SSH-2.0-drycc")
        while await reader.read(4096):
            pass
        writer.close()


async def test_the_host_key_is_made_once(builder: Builder) -> None:
    file = builder.home / "data/ssh/ssh_host_ed25519_key"
    before = file.read_bytes()
    assert file.stat().st_mode & 0o777 == 0o600
    assert load_host_key(file.parent).get_fingerprint() == load_host_key(file.parent).get_fingerprint()
    assert file.read_bytes() == before


async def test_a_port_that_is_taken_is_named_with_its_setting(idle_builder: Builder) -> None:
    address = f"127.0.0.1:{idle_builder.port}"
    with socket.create_server(("127.0.0.1", idle_builder.port)):
        serving = idle_builder.serving()
        with pytest.raises(Conflict, match=rf"{address}.*DRYCC_SSH_LISTEN"):
            await serving.__aenter__()
    async with idle_builder.serving():
        assert (await idle_builder.ssh("ping")).out == "pong"


async def test_modern_algorithms_only(builder: Builder) -> None:
    async with connect(builder) as connection:
        assert connection.get_extra_info("send_cipher") in ssh.ALGORITHMS["encryption_algs"]
    for option in (
        {"kex_algs": ["diffie-hellman-group14-sha256"]},
        {"encryption_algs": ["aes128-ctr"]},
        {"encryption_algs": ["chacha20-poly1305@openssh.com"]},
        {"server_host_key_algs": ["ssh-rsa"]},
    ):
        with pytest.raises(asyncssh.KeyExchangeFailed):
            async with connect(builder, **option):
                pass


async def test_many_at_once_over_one_connection(builder: Builder) -> None:
    """As with OpenSSH's ControlMaster."""
    await builder.push(await builder.make_repository(WEB))
    async with connect(builder) as connection:
        done = await asyncio.gather(
            *(connection.run("git-upload-pack shop", input="0000") for _ in range(20))
        )
        assert {item.returncode for item in done} == {0}
        assert all("refs/heads/main" in str(item.stdout) for item in done)


async def test_a_client_that_vanishes_in_the_handshake_leaves_nothing(builder: Builder) -> None:
    for size in (0, 1, 20, 200):
        _, writer = await asyncio.open_connection("127.0.0.1", builder.port)
        writer.write(b"SSH-2.0-x\r\n".ljust(size, b"\0")[:size])
        writer.transport.abort()
    assert (await builder.ssh("ping")).out == "pong"


async def test_an_idle_connection_does_not_hold_our_end_back(idle_builder: Builder) -> None:
    async with asyncio.timeout(5):
        async with idle_builder.serving():
            connection = await connect(idle_builder).__aenter__()
        await connection.wait_closed()
