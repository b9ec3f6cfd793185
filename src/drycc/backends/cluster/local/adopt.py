"""What earlier processes of ours have left: pods that run go on, what nobody wants is ended."""

import asyncio
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from drycc.backends.cluster.local import environment
from drycc.backends.cluster.local.directory import PodDirectory, PodRecord
from drycc.backends.cluster.local.pod import LocalPod, clean_up
from drycc.backends.cluster.local.record import AppRecord
from drycc.backends.cluster.local.site import Site
from drycc.kit import process
from drycc.kit.files import remove_leftovers, remove_tree
from drycc.kit.process import Process

Processes = Mapping[str, list[Process]]  # of our instance, by the pod that they belong to


@dataclass(frozen=True, slots=True)
class Stray:
    """Processes whose pod is unknown, over, or of an app that is gone."""

    id: str
    leader: Process | None


@dataclass(frozen=True, slots=True)
class Left:
    apps: list[AppRecord]
    pods: list[LocalPod]  # oldest first; those with a process run
    strays: list[Stray]


async def look_around(site: Site) -> Left:
    """Changes nothing but directories in which nothing is left that matters."""
    found = await _find_processes(site)
    apps, kept, unwanted = await asyncio.to_thread(_read_directories, site)
    pods = [await _match(directory, record, found.get(record.id, [])) for directory, record in kept]
    wanted = {pod.record.id for pod in pods if pod.process is not None}
    strays = [Stray(id, _find_leader(processes)) for id, processes in found.items() if id not in wanted]
    await asyncio.to_thread(_remove_all, unwanted)
    return Left(apps, sorted(pods, key=lambda pod: pod.record.created), strays)


async def end_stray(stray: Stray, grace: float) -> None:
    if stray.leader is not None:
        await process.stop(stray.leader, grace)
    await clean_up(stray.id, None)


async def _find_processes(site: Site) -> Processes:
    found: defaultdict[str, list[Process]] = defaultdict(list)
    for one in await process.find(environment.INSTANCE, site.instance):
        id = process.read_variable(one, environment.POD)
        if id and len(id) == 32:  # the edge is one of ours, too, and looked after by itself
            found[id].append(one)
    return found


def _read_directories(
    site: Site,
) -> tuple[list[AppRecord], list[tuple[PodDirectory, PodRecord]], list[Path]]:
    """Records of apps, pods to go on with, and directories of no use."""
    for parent in (site.pods, site.apps, site.images, *site.images.glob("[!.]*")):
        remove_leftovers(parent)
    apps = [app for path in site.apps.glob("*.json") if (app := AppRecord.load(path))]
    names = {app.app for app in apps}
    kept, unwanted = [], []
    for directory in _list_pods(site):
        record = directory.load()
        if record is None or not _is_wanted(record, names):
            unwanted.append(directory.path)
        else:
            kept.append((directory, record))
    return apps, kept, unwanted


def _list_pods(site: Site) -> Iterator[PodDirectory]:
    for path in site.pods.glob("[!.]*"):
        if path.is_dir():
            yield PodDirectory(path)


def _is_wanted(record: PodRecord, apps: Collection[str]) -> bool:
    """A build may come before anything of its app was applied."""
    return record.kind != "workload" or record.app in apps


async def _match(directory: PodDirectory, record: PodRecord, found: list[Process]) -> LocalPod:
    """The pod with its leader, if that lives and the pod was not given up before."""
    pod = LocalPod(record, directory)
    pod.last_exit = await asyncio.to_thread(directory.read_exit)
    leader = _find_leader(found)
    if leader is not None and not record.is_over:
        pod.process = leader
        if (record.pid, record.start_time) != (leader.pid, leader.start_time):
            # We died between its start and the note of it.
            record.pid, record.start_time = leader.pid, leader.start_time
            record.is_ready = record.kind != "workload"
    return pod


def _find_leader(found: list[Process]) -> Process | None:
    """The first process that leads a session; an app may make sessions of its own."""
    leaders = [one for one in found if (stat := process.read_stat(one.pid)) and stat.session == one.pid]
    return min(leaders, key=lambda one: (one.start_time, one.pid), default=None)


def _remove_all(paths: list[Path]) -> None:
    for path in paths:
        remove_tree(path)
