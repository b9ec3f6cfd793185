"""What stands between the platform and a pod's program: it changes nothing, and lets nothing get away."""

import asyncio
import json
from pathlib import Path
from uuid import uuid4

import pytest

from drycc.backends.cluster.base import OneOff
from drycc.backends.cluster.local import leader
from drycc.backends.cluster.local.cluster import LocalCluster
from tests.backends.cluster.local.conftest import WEB, Bench, kill_program, observed, rolled_out, spec, web
from tests.waiting import until

DUMP = """
import json, os, sys
env = {name.decode("latin-1"): value.decode("latin-1") for name, value in os.environb.items()}
print(json.dumps({"env": env, "cwd": os.getcwd()}), file=sys.stderr)
"""
EVERY_BYTE = "".join(map(chr, range(1, 0x800))) + "€\U0001f600"
NAMES = (
    "pod", "tree", "told", "code", "left", "OLDPWD", "PS1", "PS4", "ENV", "LINENO", "HISTSIZE",
    "MAIL", "CDPATH", "POSIXLY_CORRECT", "LC_NAME", "TERM", "SHLVL", "number", "argv", "env", "directory",
)  # fmt: skip
VALUES = ("", "x y", "a=b", "'\"`$(echo hi)\\", "\n\n", "-n", "*", "~", EVERY_BYTE)
PERLS = {"PERL5OPT": "-Mnowhere", "PERL_UNICODE": "SAD"}
NO_LOCALE = {"LC_ALL": "xx_YY.UTF-8", "LANG": "zz"}


@pytest.fixture(autouse=True)
def image(bench: Bench) -> None:
    bench.add_image(1, {"web.py": WEB, "dump.py": DUMP})


def step(command: str, env: dict[str, str] | None = None) -> OneOff:
    """A release step; each has an id of its own."""
    return OneOff(uuid4().hex, "blog", "release", 2, "blog:1", command, env or {}, generation=1)


async def read_all(cluster: LocalCluster, one_off: OneOff) -> bytes:
    return b"".join([output.data async for output in cluster.pods.output(one_off.id)])


async def dump(cluster: LocalCluster, command: str, env: dict[str, str]) -> dict[str, object]:
    """What a program finds that a release step with this environment runs."""
    one_off = step(command, env)
    await cluster.pods.run(one_off)
    found: dict[str, object] = json.loads(await read_all(cluster, one_off))  # nothing else was said
    found["env"] = {
        name.encode("latin-1").decode(): value.encode("latin-1").decode()
        for name, value in found["env"].items()  # type: ignore[attr-defined]
    }
    return found


@pytest.mark.parametrize("command", ["python3 dump.py", "true; python3 dump.py; true"])
@pytest.mark.parametrize("others", [{}, NO_LOCALE, PERLS])
async def test_every_value_arrives_byte_for_byte_under_its_name(
    bench: Bench, cluster: LocalCluster, command: str, others: dict[str, str]
) -> None:
    env = {name: VALUES[number % len(VALUES)] for number, name in enumerate(NAMES)} | others
    env |= {f"V{number}": value for number, value in enumerate(VALUES)}
    found = await dump(cluster, command, env)
    held = found["env"]
    assert isinstance(held, dict)
    assert {name: held.get(name) for name in env} == env
    ours = {"PATH", "LANG", "PWD", "HOME", "TMPDIR", "PYTHONUNBUFFERED", "PORT", "CONTAINER_IP"}
    added = held.keys() - env.keys() - ours - {"DRYCC_POD", "DRYCC_INSTANCE"}
    assert added <= {"LC_CTYPE"}, "which Python itself sets in a C locale"
    assert found["cwd"] == held["PWD"]


@pytest.mark.parametrize("is_perl_there", [True, False])
async def test_names_of_the_shell_itself_end_no_pod(
    cluster: LocalCluster, monkeypatch: pytest.MonkeyPatch, is_perl_there: bool
) -> None:
    if not is_perl_there:
        monkeypatch.setattr(leader, "PERL", "/nowhere/perl")
    env = dict.fromkeys(("IFS", "OPTIND", "PPID", "PWD", "a-b.c", "1", "a[b]"), "abc") | {"COLOR": "blue"}
    held = (await dump(cluster, 'test "$(echo a b)" = "a b" && python3 dump.py', env))["env"]
    assert isinstance(held, dict)
    assert held["COLOR"] == "blue"
    assert "abc" not in held.values()


@pytest.mark.parametrize("is_perl_there", [True, False])
async def test_a_program_ignores_no_signal(
    cluster: LocalCluster, monkeypatch: pytest.MonkeyPatch, is_perl_there: bool
) -> None:
    if not is_perl_there:
        monkeypatch.setattr(leader, "PERL", "/nowhere/perl")
    one_off = step("grep SigIgn /proc/self/status")
    await cluster.pods.run(one_off)
    assert int((await read_all(cluster, one_off)).split()[-1], 16) & 0x7FFFFFFF == 0, (
        "of those below the real-time signals"
    )


def escape(seconds: str) -> str:
    """A shell command that leaves a process behind: deaf, in a session of its own, with no environment."""
    deaf = f"trap '' TERM HUP INT; sleep {seconds}; sleep {seconds}"
    return f'env -i setsid -f sleep {seconds}; env -i setsid -f sh -c "{deaf}"'


def escaped(seconds: str) -> list[str]:
    """The commands of those that run."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            is_zombie = (process / "stat").read_text().rpartition(")")[2].split()[0] == "Z"
        except OSError:
            continue
        if seconds in command and not is_zombie and "python3" not in command:
            found.append(command)
    return found


@pytest.fixture
def seconds() -> str:
    """A time that only this test's processes sleep."""
    return f"3003.{uuid4().int % 10**12}"


@pytest.mark.parametrize("is_perl_there", [True, False])
async def test_sv01_who_left_the_session_and_shed_its_environment_ends_with_the_pod(
    cluster: LocalCluster, seconds: str, monkeypatch: pytest.MonkeyPatch, is_perl_there: bool
) -> None:
    if not is_perl_there:
        monkeypatch.setattr(leader, "PERL", "/nowhere/perl")
    await cluster.workloads.apply(spec(1, web(2, command=f"{escape(seconds)}; exec python3 web.py")))
    await rolled_out(cluster, 2)
    await until(lambda: len(escaped(seconds)) == 3)
    await cluster.workloads.remove("blog", 2)
    assert escaped(seconds) == []


async def test_sv01_a_pod_that_must_be_killed_takes_them_along(cluster: LocalCluster, seconds: str) -> None:
    command = f"trap '' TERM; {escape(seconds)}; echo up; while :; do sleep {seconds}; done"
    await cluster.workloads.apply(spec(1, web(2, command=command, ready_after=0.1, grace=0.3)))
    await rolled_out(cluster, 2)
    await until(lambda: len(escaped(seconds)) >= 4)
    await cluster.workloads.remove("blog", 2)
    assert escaped(seconds) == []


async def test_sv01_a_pod_that_crashes_leaves_none_to_its_successor(
    bench: Bench, cluster: LocalCluster, seconds: str
) -> None:
    command = f"test -e ../out.old || {{ {escape(seconds)}; touch ../out.old; }}; exec python3 web.py"
    await cluster.workloads.apply(spec(1, web(2, command=command)))
    await rolled_out(cluster, 2)
    await until(lambda: len(escaped(seconds)) == 3)
    await kill_program(next((bench.data / "pods").iterdir()))
    seen = await observed(cluster, lambda seen: any(pod.restarts == 1 and pod.is_ready for pod in seen.pods))
    assert escaped(seconds) == []
    assert seen.pods[0].last_exit is not None
    assert seen.pods[0].last_exit.signal == "SIGKILL"


async def test_a_pod_told_to_stop_while_its_tree_is_copied_runs_nothing(
    bench: Bench, cluster: LocalCluster
) -> None:
    for number in range(4000):
        (bench.data / f"images/blog/1/tree/{number}").write_text("x")
    for number in range(5):
        one_off = step("echo ran")
        await cluster.pods.run(one_off)
        await asyncio.sleep(number * 0.01)  # at several points of its start
        await cluster.pods.cancel(one_off.id)
        exit = await cluster.pods.wait(one_off.id)
        assert (exit.signal, await read_all(cluster, one_off)) in (("SIGTERM", b""), (None, b"ran\n"))
