"""The model cluster in a process of its own behind a socket: several workers act on it, and it counts."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, cast

from pydantic import TypeAdapter

from drycc.backends.cluster.base import (
    AppSpec,
    Cluster,
    Exit,
    Observed,
    OneOff,
    Output,
    Pod,
    Pods,
    Routes,
    RouteTable,
    Stale,
    Workloads,
)
from drycc.errors import Unavailable
from tests.cluster import ModelCluster

LINE = 16 * 1024 * 1024  # bytes of an answer


@dataclass
class Counts:
    """What was done to the cluster."""

    started: Counter[str] = field(default_factory=Counter)  # one-off → how often it was run
    changed: Counter[str] = field(default_factory=Counter)  # app → specs other than the one before
    refused: Counter[str] = field(default_factory=Counter)  # method → calls that came too late
    torn: list[str] = field(default_factory=list)  # generations that meant two different things


class CountingCluster(ModelCluster):
    def __init__(self, delay: float) -> None:
        super().__init__()
        self.delay = delay
        self.counts = Counts()
        self._meant: dict[str, AppSpec] = {}

    async def apply(self, spec: AppSpec) -> None:
        await super().apply(spec)
        before = self._meant.get(spec.app)
        self.counts.changed[spec.app] += before != spec
        if before and before.generation == spec.generation and before != spec:
            self.counts.torn.append(f"{spec.app} {spec.generation}")
        self._meant[spec.app] = spec

    async def run(self, one_off: OneOff) -> None:
        is_known = one_off.id in self.one_offs
        await super().run(one_off)
        self.counts.started[one_off.id] += not is_known

    def heal(self) -> None:
        """Turn what waits and is not to fail any more."""
        for app, present in self.apps.items():
            for rollout in list(present.values()):
                if rollout.serving != rollout.spec.release:
                    self._roll(app, present, rollout.spec)


# What passes through the socket, by call: its arguments and its answer.
_CALLS: dict[str, tuple[Any, Any]] = {
    "workloads.apply": (tuple[AppSpec], None),
    "workloads.observe": (tuple[str], Observed),
    "workloads.remove": (tuple[str, int], None),
    "workloads.facts": (tuple[()], Mapping[str, str]),
    "routes.apply": (tuple[RouteTable], None),
    "pods.list": (tuple[str], Sequence[Pod]),
    "pods.tail": (tuple[str, int], Sequence[str]),
    "pods.run": (tuple[OneOff], None),
    "pods.wait": (tuple[str], Exit),
    "pods.result": (tuple[str], bytes | None),
    "pods.cancel": (tuple[str], None),
    "pods.forget": (tuple[str], None),
    "pods.has_image": (tuple[str], bool),
    "pods.collect": (tuple[Mapping[str, frozenset[int]]], None),
}
_STREAMS: dict[str, tuple[Any, Any]] = {
    "workloads.changes": (tuple[()], str),
    "pods.output": (tuple[str, int], Output),
}
_ADAPTERS = {
    name: (TypeAdapter(arguments), TypeAdapter(answer))
    for name, (arguments, answer) in (_CALLS | _STREAMS).items()
}


async def serve(path: Path, delay: float) -> None:
    """Be the cluster until the process ends."""
    cluster = CountingCluster(delay)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            asked = await reader.readline()
            if not asked.endswith(b"\n"):
                return  # whoever asked was killed in the midst of it
            async for line in _answers(cluster, asked):
                writer.write(line + b"\n")
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()

    async with await asyncio.start_unix_server(answer, path, limit=LINE) as server:
        await server.serve_forever()


async def _answers(cluster: CountingCluster, line: bytes) -> AsyncGenerator[bytes, None]:
    name, _, raw = line.partition(b" ")
    call = name.decode()
    if call == "control":
        yield _control(cluster, json.loads(raw))
        return
    taken, given = _ADAPTERS[call]
    port, _, method = call.partition(".")
    act = getattr(getattr(cluster, port), method)
    try:
        if call in _CALLS:
            yield given.dump_json(await act(*taken.validate_json(raw)))
            return
        async with aclosing(act(*taken.validate_json(raw))) as items:
            async for item in items:
                yield given.dump_json(item)
    except Stale as stale:
        cluster.counts.refused[call] += 1
        yield json.dumps({"stale": str(stale)}).encode()


def _control(cluster: CountingCluster, wanted: Mapping[str, Any]) -> bytes:
    """Set what fails, then tell what was done."""
    for name in ("never", "broken"):
        if name in wanted:
            setattr(cluster, name, {(ptype, release) for ptype, release in wanted[name]})
    cluster.heal()
    return TypeAdapter(Counts).dump_json(cluster.counts)


class RemoteCluster(Cluster):
    """A worker's end of the socket."""

    def __init__(self, link: "Link") -> None:
        self.link = link
        self.workloads = cast(Workloads, _Port(self.link, "workloads"))
        self.pods = cast(Pods, _Port(self.link, "pods"))
        self.routes = cast(Routes, _Port(self.link, "routes"))


class _Port:
    """Methods of one port, by the table of calls."""

    def __init__(self, link: "Link", name: str) -> None:
        self._link = link
        self._name = name

    def __getattr__(self, method: str) -> Any:
        name = f"{self._name}.{method}"
        return partial(self._link.ask if name in _CALLS else self._link.stream, name)


class Link:
    """A connection a call: nothing is shared between calls, and a death in the midst leaves no half one."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def ask(self, name: str, *arguments: object) -> Any:
        async with aclosing(self.stream(name, *arguments)) as answers:
            async for answer in answers:
                return answer
        raise Unavailable("the cluster does not answer")

    async def stream(self, name: str, *arguments: object) -> AsyncGenerator[Any, None]:
        taken, given = _ADAPTERS[name]
        async with aclosing(self._exchange(name, taken.dump_json(arguments))) as lines:
            async for line in lines:
                if line.startswith(b'{"stale":'):
                    raise Stale(json.loads(line)["stale"])
                yield given.validate_json(line)

    async def control(self, **wanted: Any) -> Counts:
        """Say which (process type, release) shall fail; tells what was done to the cluster."""
        async with aclosing(self._exchange("control", json.dumps(wanted).encode())) as lines:
            return TypeAdapter(Counts).validate_json(await anext(lines))

    async def _exchange(self, name: str, asked: bytes) -> AsyncGenerator[bytes, None]:
        writer = None
        try:
            reader, writer = await asyncio.open_unix_connection(self._path, limit=LINE)
            writer.write(name.encode() + b" " + asked + b"\n")
            while line := await reader.readline():
                yield line
        except OSError as error:
            raise Unavailable(f"the cluster does not answer: {error}") from error
        finally:
            if writer:
                writer.close()
