"""What a roll-out has come to, decided from what a cluster senses. Pure: no clock, no I/O."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from drycc.backends.cluster.base import Exit, Observed, ObservedWorkload, Pod

MOST_EXITS = 3


@dataclass(frozen=True, slots=True)
class Desired:
    """What is being rolled out: replicas and release by process type, since when, and for how long."""

    replicas: Mapping[str, int]
    release: int
    started: datetime
    timeout: float  # seconds
    can_roll_back: bool


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing to decide before `seconds` have passed or something changes."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Ready:
    pass


@dataclass(frozen=True, slots=True)
class Failed:
    """The roll-out is over; `pod` is the one whose last lines say why, "" when there is none."""

    reason: str
    pod: str
    ptype: str
    is_rolled_back: bool


Decision = Wait | Ready | Failed


def step(desired: Desired, observed: Observed, now: datetime) -> Decision:
    """Ready when every process type serves as many pods as wanted; failed by exits or by the deadline."""
    missing = [ptype for ptype in desired.replicas if not _is_ready(desired, observed, ptype)]
    if not missing:
        return Ready()
    for ptype in missing:
        seen = observed.workloads.get(ptype)
        if seen and seen.release == desired.release and seen.exits >= MOST_EXITS:
            return _fail(desired, seen, ptype, f"{ptype} exited {seen.exits} times, {_last_exit(seen)}")
    left = desired.started + timedelta(seconds=desired.timeout) - now
    if left <= timedelta(0):
        seen = observed.workloads.get(missing[0])
        return _fail(desired, seen, missing[0], _late(desired, missing[0], seen))
    return Wait(left.total_seconds())


def _is_ready(desired: Desired, observed: Observed, ptype: str) -> bool:
    wanted = desired.replicas[ptype]
    seen = observed.workloads.get(ptype)
    if seen is None:
        return wanted == 0
    is_new = seen.release == desired.release and seen.replicas == wanted
    return is_new and seen.serving >= wanted and seen.updated == wanted and seen.old == 0


def _fail(desired: Desired, seen: ObservedWorkload | None, ptype: str, reason: str) -> Failed:
    pod = next((pod.name for pod in _new_pods(seen) if not pod.is_ready), "")
    return Failed(reason, pod, ptype, desired.can_roll_back)


def _late(desired: Desired, ptype: str, seen: ObservedWorkload | None) -> str:
    """The sentence for a process type that was not ready in time."""
    waited = f"within {desired.timeout:g} s"
    pods = [pod for pod in _new_pods(seen) if not pod.is_ready]
    if not pods:
        return f"no pod of {ptype} was started {waited}"
    if pods[0].last_exit and seen:
        return f"{ptype} did not stay up {waited}, {_last_exit(seen)}"
    if ptype != "web":
        return f"{ptype} was not ready {waited}"
    listens = ", ".join(map(str, pods[0].listens))
    instead = f"; the app listens on {listens} instead" if listens else ""
    return f"nothing listens on PORT {waited}{instead}: bind the port that the variable PORT names"


def _new_pods(seen: ObservedWorkload | None) -> list[Pod]:
    return [pod for pod in seen.pods if pod.is_current] if seen else []


def _last_exit(seen: ObservedWorkload) -> str:
    exits = [pod.last_exit for pod in _new_pods(seen) if pod.last_exit]
    return f"last with {describe_exit(max(exits, key=lambda exit: exit.at))}" if exits else "unseen"


def describe_exit(exit: Exit) -> str:
    """`exit code 1`, `signal SIGSEGV`, or that nobody saw it."""
    if exit.signal:
        return f"signal {exit.signal}"
    if exit.reason:
        return f"exit code {exit.code} ({exit.reason})"
    return f"exit code {exit.code}" if exit.code is not None else "an end that nobody saw"
