"""The Cluster port: four small protocols and the data that passes through them.

Every method may be repeated. `Unavailable` means that the cluster does not answer and the same
call may be made again.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Literal, Protocol

from drycc.errors import DryccError

# kubernetes.md 13.1; a local pod is never in a raw Kubernetes state.
PodState = Literal["initializing", "starting", "up", "terminating", "down", "crashed", "destroyed"]

# Every command is run by a shell, which has values of its own for these and ends where OPTIND has no sense.
SHELLS_OWN = ("IFS", "OPTIND", "PPID", "PWD")


class Stale(DryccError):
    """The app's generation is lower than what the cluster carries of it: somebody newer was here."""

    code = "stale"


@dataclass(frozen=True, slots=True)
class WorkloadSpec:
    """The desired pods of one process type; (`release`, `restarted_at`) names their template."""

    ptype: str
    release: int
    image: str  # "<app>:<build id>"
    command: str  # one line for `sh -c`
    env: Mapping[str, str] = field(repr=False)
    replicas: int
    restarted_at: datetime | None = None
    ready_after: float | None = None  # seconds without an exit; None = ready by TCP on the pod's port
    grace: float = 30.0  # seconds from SIGTERM to SIGKILL
    is_held: bool = False  # keep what runs, start no pod of this template


@dataclass(frozen=True, slots=True)
class AppSpec:
    """All that is desired of one app; process types that are not in it have no pods."""

    app: str
    generation: int  # grows with every change and take-over, and from one app of a name to the next
    workloads: tuple[WorkloadSpec, ...]


@dataclass(frozen=True, slots=True)
class Exit:
    """How a process ended: `code` 0–255, or `signal` when one killed it; both None = it vanished unseen.

    `reason` is why it could not be started at all, where that is known.
    """

    code: int | None
    signal: str | None
    at: datetime
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Pod:
    name: str
    app: str
    ptype: str
    release: int
    state: PodState
    is_ready: bool
    is_current: bool  # of the template that was applied last
    started: datetime
    restarts: int
    last_exit: Exit | None
    listens: tuple[int, ...] = ()  # ports on which it listens, looked up while it is not ready


@dataclass(frozen=True, slots=True)
class ObservedWorkload:
    """One process type as it is. Before the first pod starts all counts are 0."""

    ptype: str
    release: int
    replicas: int  # as applied
    updated: int  # pods of the applied template that run
    ready: int  # of these, ready
    serving: int  # of these, where requests go; for other types than web the same as `ready`
    old: int  # pods of other templates that were not told to stop yet
    exits: int  # of pods of the applied template since it was applied
    pods: tuple[Pod, ...]


@dataclass(frozen=True, slots=True)
class Observed:
    app: str
    generation: int  # 0 when nothing was applied yet
    workloads: Mapping[str, ObservedWorkload]


@dataclass(frozen=True, slots=True)
class OneOff:
    """A pod that runs once: a build, a release step. `id` names it for good."""

    id: str
    app: str
    kind: Literal["build", "release"]
    release: int
    image: str  # a build makes it, others run it
    command: str  # for kinds other than build
    env: Mapping[str, str] = field(repr=False)
    timeout: float = 3600.0  # seconds, then it is killed
    source: Path | None = None  # for a build: the tar file, copied in
    generation: int = field(kw_only=True)  # of the app


@dataclass(frozen=True, slots=True)
class Output:
    """Bytes that a one-off printed; `offset` is where they end."""

    data: bytes
    offset: int


@dataclass(frozen=True, slots=True)
class PodFile:
    """A file of output that a log reader follows; the edge's access lines are one such file."""

    pod: str  # "edge" for access lines
    app: str  # "" when each record names its app
    ptype: str
    release: int
    path: Path
    is_over: bool  # the pod has ended: read to the end, then `forget`


@dataclass(frozen=True, slots=True)
class RouteTable:
    """Which hosts lead to which process type of an app."""

    app: str
    hosts: tuple[str, ...]
    ptype: str = "web"
    is_routable: bool = True


class Workloads(Protocol):
    async def apply(self, spec: AppSpec) -> None:
        """Make this the desired state. Whole and idempotent; returns before any pod is ready.

        New pods start beside the old ones; when as many as wanted are ready, requests go to them
        and only then the old ones are drained and stopped. A pod that exits is started again with
        a growing delay. Raises `Stale` for a generation lower than the last one applied, also when
        that was before our restart.
        """

    async def observe(self, app: str) -> Observed:
        """What runs, as far as known now; an unknown app has no workloads."""

    def changes(self) -> AsyncIterator[str]:
        """Names of apps whose `observe` may answer differently now; coalescing, never ends."""

    async def remove(self, app: str, generation: int) -> None:
        """Stop all pods and one-offs of the app; forget its images and hosts. Waits for it.

        Raises `Stale` for a generation lower than the last one applied. Afterwards lower ones are
        refused by `apply` and `run`, as long as a process can be there that holds one.
        """

    async def facts(self) -> Mapping[str, str]:
        """What `dryccd check` prints: versions, what is unsupported, as whom pods run."""


class Pods(Protocol):
    async def list(self, app: str) -> Sequence[Pod]:
        """Pods of the app's workloads and its one-offs that run, newest start first."""

    async def tail(self, pod: str, lines: int) -> Sequence[str]:
        """The last lines that a pod printed, also of its former runs; empty for an unknown pod."""

    async def run(self, one_off: OneOff) -> None:
        """Start it, unless a one-off of this id was started before, also by an earlier process of ours.

        Raises `Stale` for a generation lower than that of an earlier one of this kind and app, or than
        the app was removed with: who comes late must not run again what has been forgotten.
        """

    def output(self, id: str, offset: int = 0) -> AsyncIterator[Output]:
        """What a one-off prints, from `offset` bytes on, as it comes; ends when the one-off has ended."""

    async def wait(self, id: str) -> Exit:
        """How a one-off ended, once it has; code and signal None when nobody saw it end."""

    async def result(self, id: str) -> bytes | None:
        """What an ended build left as `image.json`; None when it left nothing."""

    async def cancel(self, id: str) -> None:
        """End a one-off, its whole group; repeats are harmless, an unknown id is none of our business."""

    async def forget(self, id: str) -> None:
        """Remove what is kept of an ended one-off or pod."""

    async def files(self) -> Sequence[PodFile]:
        """The output files that the logger role reads; empty where the cluster ships its own logs."""

    async def has_image(self, image: str) -> bool:
        """Whether pods of this image can be started."""

    async def collect(self, images: Mapping[str, frozenset[int]]) -> None:
        """Remove images but those named (app → build ids) and those that pods use or builds make."""


class Routes(Protocol):
    async def apply(self, table: RouteTable) -> None:
        """Make requests for these hosts reach the app; returns when they do."""


class Cluster(Protocol):
    workloads: Workloads
    pods: Pods
    routes: Routes
