"""What core shall do, told once more in memory: the model that the property test compares it with."""

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

LANES = {"build": "build"}  # all others share the lane of deploys
Broken = Container[tuple[str, str, int]]  # app, process type, release


class Refused(Exception):
    """The real one must refuse it, too."""


@dataclass(eq=False)
class Build:
    id: int
    procfile: Mapping[str, str]
    fails: bool
    step_fails: bool
    state: str = "queued"


@dataclass(eq=False)
class Release:
    version: int
    build: Build | None
    config: Mapping[str, str]
    state: str = "created"
    failed: bool = False
    deployed: set[str] = field(default_factory=set)


@dataclass
class Workload:
    release: Release
    replicas: int
    is_held: bool = False


@dataclass(eq=False)
class Job:
    kind: str
    build: Build | None = None  # a build's own, or the one whose pusher waits for the deploy
    release: Release | None = None
    ptypes: Sequence[str] = ()
    force: bool = False
    id: int = 0
    is_running: bool = False
    is_under_way: bool = False
    is_cancelled: bool = False
    former: dict[str, Workload | None] | None = None  # once the pointers have moved
    can_roll_back: bool = False

    @property
    def lane(self) -> str:
        return LANES.get(self.kind, "deploy")

    def does_all_of(self, older: "Job") -> bool:
        is_wider = not self.ptypes or (older.ptypes and set(older.ptypes) <= set(self.ptypes))
        return bool(is_wider) and (self.force or not older.force)


class App:
    def __init__(self, name: str, broken: Broken) -> None:
        self.name = name
        self.broken = broken
        self.autodeploy = True
        self.autorollback = True
        self.is_destroyed = False
        self.is_gone = False
        self.releases = [Release(1, None, {})]
        self.builds: list[Build] = []
        self.workloads: dict[str, Workload] = {}
        self.jobs: list[Job] = []

    # what is asked of it

    def push(self, build: Build) -> None:
        for waiting in self.builds:
            if waiting.state == "queued":
                waiting.state = "superseded"
        self.builds.append(build)
        self._queue(Job("build", build=build))

    def cancel(self, build: Build) -> None:
        if build.state not in ("queued", "building"):
            raise Refused
        job = next(job for job in self.jobs if job.kind == "build" and job.build is build)
        job.is_cancelled = True
        if not job.is_running:
            build.state = "cancelled"

    def set_config(self, name: str, value: str | None) -> None:
        base = self.latest()
        config = {key: old for key, old in base.config.items() if key != name}
        if value is not None:
            config[name] = value
        if config == base.config:
            raise Refused
        release = self._record(base.build, config)
        if base.build and self.autodeploy:
            self._queue(Job("deploy", release=release))

    def scale(self, counts: Mapping[str, int]) -> None:
        if self.latest().build is None:
            raise Refused
        changed = {
            ptype: counts[ptype]
            for ptype, workload in self.workloads.items()
            if counts.get(ptype, workload.replicas) != workload.replicas
        }
        for ptype, count in changed.items():
            self.workloads[ptype].replicas, self.workloads[ptype].is_held = count, False
        self._apply_later(changed)

    def restart(self, ptypes: Sequence[str]) -> None:
        if set(ptypes) - set(self.workloads):
            raise Refused
        chosen = [self.workloads[ptype] for ptype in ptypes or self.workloads]
        running = [workload for workload in chosen if workload.replicas]
        for workload in running:
            workload.is_held = False
        self._apply_later(running)

    def deploy(self, ptypes: Sequence[str], *, force: bool) -> None:
        release = self.releases[-1]
        if release.build is None or set(ptypes) - {*_ptypes_of(release.build), *self.workloads}:
            raise Refused
        running = [job for job in self.jobs if job.kind == "deploy" and job.is_under_way]
        locked = {ptype for job in running for ptype in job.former or ()}
        if running and not force and (not ptypes or set(ptypes) & locked):
            raise Refused
        if force:
            self._take_back()
        self._queue(Job("deploy", release=release, ptypes=ptypes, force=True))

    def roll_back(self, version: int | None, ptypes: Sequence[str]) -> None:
        if version is None:
            version = self.latest().version - 1
        if not 1 < version <= len(self.releases) or self.releases[version - 1].failed:
            raise Refused
        target = self.releases[version - 1]
        if target.build and set(ptypes) - {*_ptypes_of(target.build), *self.workloads}:
            raise Refused
        release = self._record(target.build, target.config)
        if release.build:
            self._take_back()
            self._queue(Job("deploy", release=release, ptypes=ptypes, force=True))

    def destroy(self) -> None:
        self.is_destroyed = True
        for job in self.jobs:
            job.is_cancelled = job.is_cancelled or job.is_running
        self._queue(Job("destroy"))

    # what a worker does

    def go_on(self, job: Job, *, has_started: bool, has_moved: bool, is_over: bool, is_queued: bool) -> None:
        """A worker had the job, and came this far before its end or the job's."""
        job.is_under_way, job.is_running = True, not is_queued
        if job.build and job.kind == "build" and has_started and job.build.state == "queued":
            job.build.state = "building"
        if has_moved and job.former is None:
            self._move(job)
        if is_over:
            self.jobs.remove(job)
            self._finish(job)

    def _finish(self, job: Job) -> None:
        if job.kind == "destroy":
            self.is_gone = True
        elif self.is_destroyed:
            return
        elif job.kind == "build" and job.build:
            self._finish_build(job, job.build)
        elif job.kind == "deploy" and job.release and job.release.build:
            self._finish_deploy(job, job.release, job.release.build)

    def _finish_build(self, job: Job, build: Build) -> None:
        if build.state in ("superseded", "cancelled"):
            return
        if job.is_cancelled or build.fails:
            build.state = "cancelled" if job.is_cancelled else "failed"
            return
        build.state = "succeeded"
        release = self._record(build, self.latest().config)
        if self.autodeploy:
            self._queue(Job("deploy", release=release, build=build))

    def _finish_deploy(self, job: Job, release: Release, build: Build) -> None:
        if job.former is None and self._ends_early(job, release, build):
            return
        if job.former is None:
            self._move(job)
        if job.is_cancelled:
            self._take_over(job)
        elif any(self._fails(ptype) for ptype in job.former or ()):
            self._crash(job, release)
        else:
            self._succeed(job, release, build)

    def _ends_early(self, job: Job, release: Release, build: Build) -> bool:
        """Before any pointer moves: superseded, or by its release step."""
        newer = [newer for newer in self.jobs if self._is_newer_deploy(newer, job) and newer.does_all_of(job)]
        if newer:
            self._hand_over(job, newer[-1])
            return True
        has_step = job.build is not None and "release" in build.procfile
        if has_step and job.is_cancelled:
            self._take_over(job)
        elif has_step and build.step_fails:
            self._crash(job, release)
        return has_step and (job.is_cancelled or build.step_fails)

    def _hand_over(self, job: Job, newer: Job) -> None:
        """Whoever waits for a build waits for the newer release of it."""
        if job.build and newer.release and newer.release.build is job.build:
            newer.build = job.build

    def _is_newer_deploy(self, newer: Job, job: Job) -> bool:
        return newer.kind == "deploy" and newer.id > job.id and not newer.is_running

    def _fails(self, ptype: str) -> bool:
        workload = self.workloads[ptype]
        return workload.replicas > 0 and (self.name, ptype, workload.release.version) in self.broken

    def _move(self, job: Job) -> None:
        release, former = job.release, {}
        assert release
        assert release.build
        for ptype in _ptypes_of(release.build):
            is_named = not job.ptypes or ptype in job.ptypes
            if is_named and (job.force or self._differs(ptype, release)):
                old = self.workloads.get(ptype)
                former[ptype] = old and Workload(old.release, old.replicas, old.is_held)
                replicas = old.replicas if old else int(ptype == "web")
                self.workloads[ptype] = Workload(release, replicas)
        before = self.previous(release)
        job.former = former
        job.can_roll_back = self.autorollback and before is not None and before.build is not None

    def _differs(self, ptype: str, release: Release) -> bool:
        old = self.workloads.get(ptype)
        if old is None or old.is_held:
            return True
        return old.release.build is not release.build or old.release.config != release.config

    def _take_over(self, job: Job) -> None:
        self._put_back(job)
        self._queue(Job("apply"))

    def _crash(self, job: Job, release: Release) -> None:
        release.state, release.failed = "crashed", True
        if job.can_roll_back:
            self._put_back(job)
        else:
            for ptype in job.former or ():
                self.workloads[ptype].is_held = True
        self._apply_later(job.former)

    def _succeed(self, job: Job, release: Release, build: Build) -> None:
        release.state, release.failed = "succeed", False
        release.deployed |= set(job.former or ())
        vanished = set(self.workloads) - set(_ptypes_of(build)) if self.autodeploy else set()
        for ptype in vanished:
            del self.workloads[ptype]
        self._apply_later(vanished)

    def _put_back(self, job: Job) -> None:
        for ptype, stood in (job.former or {}).items():
            if stood is None:
                del self.workloads[ptype]
            else:
                workload = self.workloads[ptype]
                workload.release, workload.is_held = stood.release, stood.is_held

    # releases

    def latest(self) -> Release:
        good = [release for release in self.releases if not (self.autorollback and release.failed)]
        return good[-1] if good else self.releases[0]

    def previous(self, release: Release) -> Release | None:
        others = [other for other in self.releases if other is not release]
        if self.autorollback:
            others = [other for other in others if other.state == "succeed" and not other.failed]
        return others[-1] if others else None

    def _record(self, build: Build | None, config: Mapping[str, str]) -> Release:
        self.releases.append(Release(len(self.releases) + 1, build, config))
        return self.releases[-1]

    def _take_back(self) -> None:
        for job in self.jobs:
            if job.kind == "deploy" and job.is_under_way:
                job.is_cancelled = True

    def _apply_later(self, changed: Iterable[object] | None) -> None:
        if changed and any(True for _ in changed):
            self._queue(Job("apply"))

    def _queue(self, job: Job) -> None:
        self.jobs.append(job)


def _ptypes_of(build: Build) -> list[str]:
    return [ptype for ptype in build.procfile or ["web"] if ptype != "release"]
