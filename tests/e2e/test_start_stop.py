"""Starts that fail, and stops of what does not run: neither leaves anything."""

import os
import shutil
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from drycc.kit.files import delete_tree
from drycc.settings import LONGEST_RUN, load
from tests.conftest import QUICK
from tests.e2e import apps
from tests.e2e.developer import Developer
from tests.invariants import find_processes
from tests.platform import Platform

pytestmark = pytest.mark.e2e


@pytest.fixture
async def stopped() -> AsyncIterator[Platform]:
    """A platform that was never started."""
    platform = Platform(environment=QUICK)
    try:
        yield platform
    finally:
        await platform.stop()
        shutil.rmtree(platform.home)


async def test_a_taken_address_leaves_nothing_running(stopped: Platform) -> None:
    for port, setting in ((stopped.ssh_port, "DRYCC_SSH_LISTEN"), (stopped.edge_port, "DRYCC_EDGE_LISTEN")):
        with socket.create_server(("127.0.0.1", port)):
            done = await stopped.dryccd("serve")
        assert (done.code, done.err.count("\n")) == (1, 1), done
        assert f"{port}, it is already in use; free it or set {setting}" in done.err
        assert find_processes(stopped) == []


async def test_a_start_that_fails_late_ends_the_edge_that_it_started(stopped: Platform) -> None:
    stopped.data.mkdir()
    (stopped.data / "ssh").write_text("no directory")
    done = await stopped.dryccd("serve")
    assert done.code == 1
    assert find_processes(stopped) == []
    socket.create_server(("127.0.0.1", stopped.edge_port)).close()


async def test_a_start_that_fails_ends_nothing_that_ran_before(platform: Platform) -> None:
    ann = await Developer.join(platform)
    await ann.push("shop", await ann.create("shop"), apps.answering("'one'"))
    await platform.kill()
    key = platform.data / "ssh/ssh_host_ed25519_key"
    key.rename(key.with_name("aside"))
    key.mkdir()
    before = find_processes(platform)
    assert (await platform.dryccd("serve")).code == 1
    assert find_processes(platform) == before
    assert (await ann.get("shop")).text == "one"


async def test_a_stop_of_what_does_not_run_starts_and_makes_nothing(stopped: Platform) -> None:
    with socket.create_server(("127.0.0.1", stopped.edge_port)):
        for _ in range(2):
            done = await stopped.dryccd("stop")
            assert done.code == 0, done
            assert "nothing is left running" in done.out
            assert find_processes(stopped) == []
            assert not stopped.data.exists()
            assert not stopped.data.with_name("data-keyring").exists()


async def test_a_stop_ends_what_a_removed_directory_has_left(platform: Platform) -> None:
    ann = await Developer.join(platform)
    await ann.push("shop", await ann.create("shop"), apps.answering("'one'"))
    await platform.kill()
    delete_tree(platform.data)
    with socket.socket() as stranger:
        stranger.bind(("127.0.0.1", 0))
        assert len(find_processes(platform)) > 1
        await platform.stop()
    assert find_processes(platform) == []
    assert not platform.data.exists()


async def test_a_stop_ends_an_edge_that_listens_elsewhere_by_now(platform: Platform) -> None:
    await platform.kill()
    platform.settings["DRYCC_EDGE_LISTEN"] = "127.0.0.1:1"
    assert len(find_processes(platform)) == 1
    await platform.stop()
    assert find_processes(platform) == []


async def test_a_long_data_directory_has_its_sockets_elsewhere(stopped: Platform) -> None:
    data = stopped.home / ("d" * 100) / "data"
    stopped.data = data
    stopped.settings["DRYCC_DATA"] = str(data)
    run = Path(load({"DRYCC_DATA": str(data)}).run)
    assert run.parent == Path("/tmp")
    try:
        await stopped.start()
        assert (run / "edge.sock").is_socket()
        assert run.stat().st_mode & 0o777 == 0o700
        await stopped.kill()
        await stopped.start()
        await stopped.stop()
        run.chmod(0o777)
        done = await stopped.dryccd("serve")
        assert (done.code, "DRYCC_RUN" in done.err) == (1, True), done
        assert find_processes(stopped) == []
    finally:
        shutil.rmtree(run)


@pytest.mark.parametrize("size", [LONGEST_RUN, LONGEST_RUN + 1])
async def test_a_run_directory_that_is_too_long_is_refused_at_once(stopped: Platform, size: int) -> None:
    run = os.fspath(stopped.home / "r")
    run += "r" * (size - len(run))
    stopped.settings["DRYCC_RUN"] = run
    if size <= LONGEST_RUN:
        await stopped.start()
        return
    for command in ("serve", "check"):
        done = await stopped.dryccd(command)
        assert done.code == 1
        assert f"DRYCC_RUN: {run} has {size} bytes" in done.out + done.err
    assert not stopped.data.exists()
    assert not Path(run).exists()


@pytest.mark.parametrize("program", ["edge", "build-image"])
async def test_a_program_of_ours_run_by_hand_says_so(stopped: Platform, program: str) -> None:
    done = await stopped.dryccd(program)
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith("dryccd: `dryccd serve` starts this program")
    assert done.err.count("\n") == 1
