"""A cluster as far as logs go: output files of real processes, in one directory."""

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from drycc.backends.cluster.base import Pod, PodFile
from tests.cluster import ModelCluster


class PrintedCluster(ModelCluster):
    def __init__(self, directory: Path) -> None:
        super().__init__()
        self.directory = directory
        self.listed: dict[str, PodFile] = {}
        self.forgotten: list[str] = []
        self.changed = asyncio.Event()

    def add(self, pod: str, app: str = "foo", ptype: str = "web", *, is_over: bool = False) -> Path:
        """A pod with an empty file, or one that an earlier process of ours left."""
        path = self.directory / f"{pod}.out"
        path.touch()
        self.listed[pod] = PodFile(pod, app, ptype, 2, path, is_over)
        self.changed.set()
        return path

    def end(self, pod: str) -> None:
        self.listed[pod] = replace(self.listed[pod], is_over=True)
        self.changed.set()

    async def start(self, pod: str, *argv: str | Path) -> asyncio.subprocess.Process:
        """A pod whose output goes to its file."""
        output = os.open(self.add(pod), os.O_WRONLY | os.O_APPEND)
        try:
            return await asyncio.create_subprocess_exec(*argv, stdout=output, stderr=output)
        finally:
            os.close(output)

    async def run_to_end(self, pod: str, *argv: str | Path) -> None:
        process = await self.start(pod, *argv)
        assert await process.wait() == 0
        self.end(pod)

    async def files(self) -> Sequence[PodFile]:
        return list(self.listed.values())

    async def forget(self, id: str) -> None:
        self.forgotten.append(id)
        self.listed.pop(id).path.unlink()
        self.changed.set()

    async def list(self, app: str) -> Sequence[Pod]:
        return [
            Pod(file.pod, app, file.ptype, file.release, "up", True, True, datetime.now(UTC), 0, None)
            for file in self.listed.values()
            if file.app == app and not file.is_over
        ]

    async def changes(self) -> AsyncIterator[str]:
        while True:
            await self.changed.wait()
            self.changed.clear()
            yield "foo"
