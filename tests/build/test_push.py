"""Pushes by real git over real ssh, from the first byte to the release."""

import asyncio
import os
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from drycc.build import role
from drycc.build.git import collect_garbage
from drycc.build.session import packet
from drycc.core.models import Build
from tests.build.builder import WEB, Builder, connect
from tests.cluster import Finished
from tests.waiting import until


def lines(said: str) -> list[str]:
    """What came by `remote:`, without git's padding."""
    return [
        line.removeprefix("remote: ").rstrip() for line in said.splitlines() if line.startswith("remote:")
    ]


def processes_of(home: Path) -> list[str]:
    """Command lines that name this test's directory: git, hooks and their children."""
    found = []
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            command = (directory / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if f"{home}/data/repos" in command:
            found.append(command)
    return found


def leftovers(builder: Builder) -> list[Path]:
    return list(builder.home.glob("data/repos/*/pushes/*"))


async def test_a_push_is_built_released_and_cloned(builder_on_both: Builder) -> None:
    builder = builder_on_both
    repository = await builder.make_repository(WEB)
    said = await builder.push(repository)
    wanted = [
        "-----> Build 1",
        "Starting build... but first, coffee!",
        "built",
        "Build complete.",
        "Launching App...",
        "Done, shop:v2 deployed to Workflow",
    ]
    assert [line for line in lines(said) if line in wanted] == wanted, said
    assert "* [new branch]" in said
    assert await builder.releases() == [(2, "succeed")]
    await builder.git("clone", "-q", builder.remote(), "copy", cwd=builder.home)
    head = (await builder.git("rev-parse", "HEAD", "main", cwd=repository)).out
    assert (await builder.git("rev-parse", "HEAD", "main", cwd=builder.home / "copy")).out == head
    (build,) = await builder.rows(Build)
    assert build.sha == head.split()[0]
    assert build.procfile == {"web": "python3 -m http.server $PORT"}


async def test_the_source_is_the_commits_files(builder: Builder) -> None:
    await builder.make_repository({**WEB, "bin/every": bytes(range(256)) * 40})
    builder.cluster.hanging = True
    process = await builder.start_push(builder.home / "work")
    (one_off,) = await until(lambda: list(builder.cluster.one_offs.values()))
    assert one_off.source is not None
    unpacked = builder.home / "unpacked"
    unpacked.mkdir()
    assert await (await asyncio.create_subprocess_exec("tar", "xf", one_off.source, cwd=unpacked)).wait() == 0
    assert (unpacked / "bin/every").read_bytes() == bytes(range(256)) * 40
    assert (unpacked / "Procfile").read_text() == WEB["Procfile"]
    builder.cluster.ended[one_off.id].set()
    assert await process.wait() == 0


async def test_gp01_a_shallow_clone_deploys_and_later_history_heals(builder: Builder) -> None:
    repository = await builder.make_repository(WEB)
    older = (await builder.git("rev-parse", "HEAD", cwd=repository)).out.strip()
    for number in range(3):
        await builder.commit(repository, {"n": str(number)})
    url = f"file://{repository}"
    await builder.git("clone", "-q", "--depth", "1", url, "shallow", cwd=builder.home)
    await builder.push(builder.home / "shallow")
    await builder.git("clone", "-q", builder.remote(), "cut", cwd=builder.home)
    assert (await builder.git("rev-list", "--count", "HEAD", cwd=builder.home / "cut")).out == "1\n"
    # A commit from before the cut: the pusher must not believe that we have what lies behind it.
    await builder.push(repository, f"{older}:refs/heads/main")
    await builder.push(repository)
    await builder.git("clone", "-q", builder.remote(), "whole", cwd=builder.home)
    assert (await builder.git("rev-list", "--count", "HEAD", cwd=builder.home / "whole")).out == "4\n"
    (kept,) = builder.home.glob("data/repos/*.git")
    await builder.git("fsck", "--full", cwd=kept)
    assert await builder.releases() == [(2, "succeed"), (3, "succeed"), (4, "succeed")]


async def test_gp01_two_shallow_pushes_at_once_both_deploy(builder: Builder) -> None:
    repository = await builder.make_repository(WEB)
    for number in range(4):
        await builder.commit(repository, {"n": str(number)})
    builder.cluster.hanging = True
    pushes = []
    for depth in ("1", "2"):
        copy = builder.home / f"depth-{depth}"
        await builder.git("clone", "-q", "--depth", depth, f"file://{repository}", copy, cwd=builder.home)
        await builder.commit(copy, {"mine": depth})
        pushes.append(await builder.start_push(copy))
        await until(lambda: builder.rows(Build))
    await until(lambda: _has_rows(builder, 2))
    builder.cluster.hanging = False
    for ended in list(builder.cluster.ended.values()):
        ended.set()
    assert [await process.wait() for process in pushes] == [0, 0]


async def _has_rows(builder: Builder, count: int) -> bool:
    return len(await builder.rows(Build)) == count


async def test_gp02_gp03_any_commit_deploys_again_and_in_any_order(builder: Builder) -> None:
    repository = await builder.make_repository(WEB)
    first = (await builder.git("rev-parse", "HEAD", cwd=repository)).out.strip()
    second = await builder.commit(repository, {"n": "2"})
    await builder.push(repository)
    await builder.push(repository, f"{first}:refs/heads/main")  # an ancestor, without force
    await builder.push(repository, f"{first}:refs/heads/main")  # the same again
    await builder.git("commit", "-q", "--amend", "-m", "amended", cwd=repository)
    amended = (await builder.git("rev-parse", "HEAD", cwd=repository)).out.strip()
    await builder.push(repository, "HEAD:main")
    await builder.git("checkout", "-q", "--detach", cwd=repository)
    await builder.push(repository, "HEAD:refs/heads/x/y")
    shas = [build.sha for build in sorted(await builder.rows(Build), key=lambda build: build.id)]
    assert shas == [second, first, first, amended, amended]
    assert await builder.releases() == [(number, "succeed") for number in range(2, 7)]


async def test_a_second_push_sends_only_what_is_new(builder: Builder) -> None:
    repository = await builder.make_repository({**WEB, "big": os.urandom(1024 * 1024)})
    await builder.push(repository)
    await builder.commit(repository, {"small": "x"})
    done = await builder.git("push", "--progress", builder.remote(), "main", cwd=repository)
    sent = re.search(r"Writing objects: 100% \((\d+)/\1\), (.*?),? done", done.err)
    assert sent is not None, done.err
    assert sent[1] == "3"
    assert "MiB" not in sent[2]


@pytest.mark.parametrize("state", ["cancelled", "kept"])
async def test_gp04_a_killed_client_cancels_its_build_unless_it_asked_otherwise(
    builder: Builder, state: str
) -> None:
    repository = await builder.make_repository(WEB)
    builder.cluster.hanging = True
    process = await builder.start_push(repository, *(("-o", "keep") if state == "kept" else ()))
    (one_off,) = await until(lambda: list(builder.cluster.one_offs.values()))
    assert processes_of(builder.home)
    os.killpg(process.pid, 9)
    await process.wait()
    await until(lambda: not processes_of(builder.home))
    await until(lambda: not leftovers(builder))
    builder.cluster.hanging = False
    if state == "kept":
        builder.cluster.ended[one_off.id].set()
        await until(lambda: _is_live(builder))
        await builder.git("clone", "-q", builder.remote(), "copy", cwd=builder.home)
        return
    await until(lambda: _are_builds(builder, [("cancelled", "the pusher went away")]))
    await builder.push(repository)
    assert await builder.releases() == [(2, "succeed")]


async def _is_live(builder: Builder) -> bool:
    return await builder.releases() == [(2, "succeed")]


async def _are_builds(builder: Builder, states: list[tuple[str, str]]) -> bool:
    return await builder.builds() == states


async def test_gp08_one_push_one_release(builder: Builder) -> None:
    repository = await builder.make_repository(WEB)
    await builder.git("branch", "topic", cwd=repository)
    await builder.git("tag", "v1", cwd=repository)
    await builder.push(repository, "topic")
    said = await builder.push(repository, "main", "topic", "v1")
    assert " !     topic: not deployed, main is; push it alone to deploy it" in lines(said)
    assert any(line.startswith(" !     refs/tags/v1: not deployed; a tag") for line in lines(said))
    said = await builder.push(repository, "topic:one", "topic:two", code=1)
    assert " !     one: one push deploys one branch" in said
    assert "[remote rejected] topic -> two (pre-receive hook declined)" in said
    said = await builder.push(repository, "v1", code=1)
    assert "refs/tags/v1: a tag is not deployed" in said
    assert len(await builder.rows(Build)) == 2
    assert not leftovers(builder)


async def test_a_deletion_never_reaches_the_app(builder: Builder) -> None:
    repository = await builder.make_repository(WEB)
    await builder.push(repository)
    said = await builder.push(repository, ":main", code=1)
    assert "remote ref does not exist" in said
    assert len(await builder.rows(Build)) == 1


async def test_gp10_refusals_before_data_and_after(builder: Builder) -> None:
    repository = await builder.make_repository({"Procfile": "web\n"})
    said = await builder.push(repository, user="bob", code=128)
    assert "fatal: remote error: you (bob) may not change the app shop; ask its owner" in said
    said = await builder.push(repository, app="nothere", code=128)
    assert "fatal: remote error: there is no app nothere; make it with: drycc apps create nothere" in said
    assert not list(builder.home.glob("data/repos/*"))
    said = await builder.push(repository, code=1)
    assert ' !     Procfile:1: expected "<type>: <command>", as in "web: python3 app.py"' in lines(said)
    assert "(pre-receive hook declined)" in said
    said = await builder.push(repository, options=("token=s3cret",), code=1)
    assert " !     there is no push option 'token'; known ones: keep" in lines(said)
    assert await builder.rows(Build) == []
    done = await builder.git("clone", builder.remote(), "copy", cwd=builder.home, user="bob", code=128)
    assert "fatal: remote error: you (bob) may not view the app shop" in done.err


async def test_gp11_a_user_deactivated_a_second_ago_is_told(builder: Builder) -> None:
    repository = await builder.make_repository(WEB)
    await builder.push(repository)
    await builder.deactivate("ann")
    said = await builder.push(repository, code=128)
    assert "Permission denied (publickey)" in said
    assert len(await builder.rows(Build)) == 1


async def test_a_failed_build_is_the_pushers_failure(builder: Builder) -> None:
    repository = await builder.make_repository(WEB)
    builder.cluster.builds = Finished(b"compiling\n\x1b[31mno such thing\x1b[0m\n", code=3, result=None)
    said = await builder.push(repository, code=1)
    assert lines(said)[-2:] == ["no such thing", " !     the build failed with exit code 3"]
    assert "[remote rejected] main -> main (pre-receive hook declined)" in said
    builder.cluster.builds = Finished(b"built\n")
    await builder.push(repository)
    assert [state for state, _ in await builder.builds()] == ["failed", "succeeded"]


async def test_a_release_that_crashes_fails_the_push_and_the_clone_gives_the_one_before(
    builder: Builder,
) -> None:
    repository = await builder.make_repository(WEB)
    serving = (await builder.git("rev-parse", "HEAD", cwd=repository)).out
    await builder.push(repository)
    await builder.commit(repository, {"n": "2"})
    builder.cluster.broken.add(("web", 3))
    said = await builder.push(repository, code=1)
    assert "(pre-receive hook declined)" in said
    assert await builder.releases() == [(2, "succeed"), (3, "crashed")]
    await builder.git("clone", "-q", builder.remote(), "copy", cwd=builder.home)
    assert (await builder.git("rev-parse", "HEAD", cwd=builder.home / "copy")).out == serving


async def test_two_pushes_at_once_are_both_received(builder: Builder) -> None:
    repository = await builder.make_repository(WEB)
    builder.cluster.hanging = True
    first = await builder.start_push(repository)
    (one_off,) = await until(lambda: list(builder.cluster.one_offs.values()))
    second = await builder.start_push(repository)
    await until(lambda: _has_rows(builder, 2))
    third = await builder.start_push(repository)
    _, superseded = await second.communicate()
    assert second.returncode == 1
    assert "superseded by build 3" in superseded.decode()
    builder.cluster.hanging = False
    builder.cluster.ended[one_off.id].set()
    (_, one), (_, three) = await first.communicate(), await third.communicate()
    assert (first.returncode, third.returncode) == (0, 0), (one, three)
    assert "-----> Waiting: build 1 of this app is running" in three.decode()


async def test_a_pack_over_the_cap_is_refused_and_nothing_is_left(builder: Builder) -> None:
    repository = await builder.make_repository({**WEB, "big": os.urandom(5 * 1024 * 1024)})
    said = await builder.push(repository, code=None)
    assert "pack exceeds maximum allowed size" in said
    assert await builder.rows(Build) == []
    await until(lambda: not leftovers(builder))
    assert await builder.git("ls-remote", builder.remote(), cwd=builder.home)


async def test_a_small_pack_with_a_large_tree_is_refused_before_it_is_read(builder: Builder) -> None:
    repository = await builder.make_repository({**WEB, "zeros": b"\0" * (40 * 1024 * 1024)})
    said = await builder.push(repository, code=1)
    assert "larger than 33554432 bytes together" in said


async def test_objects_that_git_finds_wrong_are_refused(builder: Builder) -> None:
    repository = await builder.make_repository(WEB)
    blob = (await builder.git("rev-parse", "HEAD:Procfile", cwd=repository)).out.strip()
    (repository / "entry").write_bytes(b"100644 .git\0" + bytes.fromhex(blob))
    argv = ("hash-object", "-t", "tree", "--literally", "-w", "entry")
    tree = (await builder.git(*argv, cwd=repository)).out.strip()
    commit = (await builder.git("commit-tree", tree, "-m", "x", cwd=repository)).out.strip()
    said = await builder.push(repository, f"{commit}:refs/heads/main", code=1)
    assert "hasDotgit" in said
    assert await builder.rows(Build) == []


async def test_a_hook_that_is_not_executable_is_an_internal_error(builder: Builder) -> None:
    repository = await builder.make_repository(WEB)
    (builder.home / "data/ssh/hooks/pre-receive").chmod(0o644)
    done = await builder.git("push", builder.remote(), "main", cwd=repository, code=None)
    assert done.code != 0
    assert re.search(r" !     internal error, incident [0-9a-f]{12}", done.err)
    assert await builder.rows(Build) == []


async def test_a_bug_of_ours_is_told_as_an_incident(
    builder: Builder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("secret detail")

    monkeypatch.setattr("drycc.build.push.read_spec", broken)
    said = await builder.push(await builder.make_repository(WEB), code=1)
    assert re.search(r" !     internal error, incident [0-9a-f]{12}", said)
    assert "secret detail" not in said


async def test_our_own_end_cancels_nothing_and_says_so(idle_builder: Builder) -> None:
    builder = idle_builder
    repository = await builder.make_repository(WEB)
    builder.cluster.hanging = True
    async with builder.working():
        async with builder.serving():
            process = await builder.start_push(repository)
            (one_off,) = await until(lambda: list(builder.cluster.one_offs.values()))
        _, said = await process.communicate()
        assert process.returncode == 1
        assert "-----> Build 1" in said.decode()
        assert "the platform restarts; build 1 goes on without this terminal" in said.decode()
        builder.cluster.ended[one_off.id].set()
        await until(lambda: _is_live(builder))


async def test_fifty_small_pushes_lose_none_of_their_ends(builder: Builder) -> None:
    repository = await builder.make_repository(WEB)
    for number in range(50):
        await builder.commit(repository, {"n": str(number)})
        said = await builder.push(repository)
        assert f"Done, shop:v{number + 2} deployed to Workflow" in lines(said), said
        assert "unexpected disconnect" not in said
    assert not processes_of(builder.home)
    assert not leftovers(builder)
    (kept,) = builder.home.glob("data/repos/*.git")
    assert len(list(kept.glob("objects/pack/*.pack"))) == 50
    await collect_garbage(kept)
    assert len(list(kept.glob("objects/pack/*.pack"))) == 1
    await builder.git("fsck", "--full", cwd=kept)
    await builder.git("clone", "-q", builder.remote(), "copy", cwd=builder.home)


async def test_what_a_dead_platform_left_is_removed_by_the_next(idle_builder: Builder) -> None:
    builder = idle_builder

    async def data() -> AsyncIterator[bytes]:
        yield b"tar"

    async with builder.serving():
        await builder.push(await builder.make_repository(WEB), ":main", code=1)
    (kept,) = builder.home.glob("data/repos/*.git")
    (kept / "pushes/dead/objects/tmp_objdir-incoming-x").mkdir(parents=True)
    await builder.objects.put("sources/shop/orphan.tar", data())
    async with builder.serving():
        assert not leftovers(builder)
        assert await builder.objects.list("sources/") == []


async def test_a_client_that_dies_while_it_sends_leaves_nothing(builder: Builder) -> None:
    async with connect(builder) as connection:
        process = await connection.create_process("git-receive-pack shop", encoding=None)
        await process.stdout.read(4)
        asked = f"{'0' * 40} {'a' * 40} refs/heads/main\0report-status"
        process.stdin.write(packet(asked) + b"0000PACK\0\0\0\2\0\0\0\1")
        await until(lambda: leftovers(builder))
        connection.abort()
    await until(lambda: not leftovers(builder))
    await until(lambda: not processes_of(builder.home))


async def test_a_destroyed_apps_repository_goes_with_it(builder: Builder) -> None:
    await builder.push(await builder.make_repository(WEB))
    assert list(builder.home.glob("data/repos/*.git"))
    await builder.destroy_app("shop")
    await until(lambda: not list(builder.home.glob("data/repos/*.git")))
    await builder.add_app("shop")
    await builder.git("clone", "-q", builder.remote(), "empty", cwd=builder.home)
    assert [path.name for path in (builder.home / "empty").iterdir()] == [".git"]


def test_the_role_holds_no_cluster() -> None:
    assert set(role.Needs.__dataclass_fields__) == {"settings", "db", "objects", "nudges"}
