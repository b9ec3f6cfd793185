"""What a roll-out has come to, as a table of what is seen."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from drycc.backends.cluster.base import Exit, Observed, ObservedWorkload, Pod
from drycc.core.rollout import Desired, Failed, Ready, Wait, step

START = datetime(2026, 1, 1, tzinfo=UTC)
DESIRED = Desired({"web": 2}, release=7, started=START, timeout=120, can_roll_back=True)


def pod(**changes: object) -> Pod:
    whole = Pod("a-web-1-x", "a", "web", 7, "starting", False, True, START, 0, None)
    return replace(whole, **changes)  # type: ignore[arg-type]


SERVING = ObservedWorkload(
    "web", release=7, replicas=2, updated=2, ready=2, serving=2, old=0, exits=0, pods=(pod(), pod())
)


def seen(**changes: object) -> Observed:
    return Observed("a", 3, {"web": replace(SERVING, **changes)})  # type: ignore[arg-type]


def test_ready_when_as_many_as_wanted_serve_and_no_old_pod_is_left() -> None:
    assert step(DESIRED, seen(), START) == Ready()


@pytest.mark.parametrize(
    "changes",
    [
        {"serving": 1},
        {"updated": 3},
        {"old": 1},
        {"release": 6},
        {"replicas": 1, "updated": 1, "serving": 1},
        {"ready": 2, "serving": 0},
    ],
)
def test_anything_less_waits_until_the_deadline(changes: dict[str, object]) -> None:
    assert step(DESIRED, seen(**changes), START + timedelta(seconds=20)) == Wait(100)


def test_nothing_observed_waits_too_and_nothing_wanted_is_ready() -> None:
    nothing = Observed("a", 0, {})
    assert step(DESIRED, nothing, START) == Wait(120)
    assert step(replace(DESIRED, replicas={"web": 0}), nothing, START) == Ready()
    assert step(replace(DESIRED, replicas={}), nothing, START) == Ready()


def test_the_third_exit_fails_at_once_with_its_code() -> None:
    exits = (pod(last_exit=Exit(1, None, START)), pod(last_exit=Exit(None, "SIGSEGV", START + timedelta(1))))
    two = step(DESIRED, seen(serving=0, exits=2, pods=exits), START)
    three = step(DESIRED, seen(serving=0, exits=3, pods=exits), START)
    assert isinstance(two, Wait)
    assert three == Failed("web exited 3 times, last with signal SIGSEGV", "a-web-1-x", "web", True)


def test_exits_of_a_former_release_do_not_count() -> None:
    assert isinstance(step(DESIRED, seen(release=6, exits=9), START), Wait)


def test_bd07_nothing_on_port_says_so_and_names_what_the_app_listens_on() -> None:
    late = START + timedelta(seconds=120)
    silent = step(DESIRED, seen(serving=0), late)
    other = step(replace(DESIRED, can_roll_back=False), seen(serving=0, pods=(pod(listens=(3000,)),)), late)
    assert isinstance(silent, Failed)
    assert isinstance(other, Failed)
    assert silent.reason.startswith("nothing listens on PORT within 120 s: bind the port")
    assert "the app listens on 3000 instead" in other.reason
    assert (silent.is_rolled_back, other.is_rolled_back) == (True, False)


def test_the_first_process_type_that_is_missing_is_named() -> None:
    desired = replace(DESIRED, replicas={"web": 2, "worker": 1})
    decision = step(desired, seen(), START + timedelta(seconds=121))
    assert decision == Failed("no pod of worker was started within 120 s", "", "worker", True)
