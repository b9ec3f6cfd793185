"""The same table, typed to the official client. What it sends passes a recording proxy: where it differs from
the table, or from what the twin prints for the same answers, the table or the twin is wrong."""

import os
import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.client.recorder import Exchange, Recorder, recording
from tests.client.story import begin
from tests.client.table import STORY, Call, Row
from tests.client.twin import Said, body_of, filled, filled_in, headers_of, learn, rendered
from tests.platform import Platform, run

OWN = {"Host", "Content-Length", "Upgrade"}  # set by the client's HTTP library, with Connection and Sec-…


@dataclass
class Official:
    """The client as a child process, with a home of its own."""

    program: str
    recorder: Recorder
    home: Path
    directory: Path
    facts: dict[str, str] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)

    async def say(self, row: Row) -> Said:
        argv = [filled(word, self.facts) for word in shlex.split(row.typed)]
        environment = {
            "HOME": str(self.home),
            "PATH": os.environ["PATH"],
            "LC_ALL": "en_US.UTF-8",
            "TZ": "UTC",
        }
        done = await run(self.program, *argv, cwd=self.directory, environment=environment, types=row.answers)
        passed = self.recorder.take()
        for call, exchange in zip(row.calls, passed, strict=False):
            self.faults += [f"{row.typed}: {fault}" for fault in self.compared(call, exchange)]
            if exchange.answer.status == call.status:
                learn(call, exchange.answer, self.facts)
        if len(passed) != len(row.calls):
            sent = [f"{exchange.method} {exchange.path}" for exchange in passed]
            self.faults.append(f"{row.typed}: sends {sent}, the row has {len(row.calls)} calls")
        said = Said([exchange.answer for exchange in passed], plain(done.out), complaint(done.err))
        if done.code != bool(row.error):
            self.faults.append(f"{row.typed}: ends with {done.code}: {done.err}")
        self.faults += self.shown_otherwise(row, said)
        self.faults += await self.left_otherwise(row)
        return said

    def compared(self, call: Call, exchange: Exchange) -> list[str]:
        """How a request that went out differs from the row's."""
        sent = {
            "method": (exchange.method, call.method),
            "path": (exchange.path, filled(call.path, self.facts)),
            "body": (exchange.body, filled_in(call.body, self.facts)),
            "headers": (theirs(exchange.headers), theirs(headers_of(call, self.facts))),
            "status": (exchange.answer.status, call.status),
        }
        if exchange.method == "POST":
            size = str(len(body_of(call, self.facts) or b""))
            sent["length"] = (exchange.headers.get("Content-Length"), size)
        return [f"{what} {got!r}, in the row {row!r}" for what, (got, row) in sent.items() if got != row]

    def shown_otherwise(self, row: Row, said: Said) -> list[str]:
        """The twin makes its print of the same answers: no blank may differ."""
        statuses = [answer.status for answer in said.answers]
        if row.shows is None or statuses != [call.status for call in row.calls] or statuses[-1] >= 400:
            return []
        twins = rendered(row, said.answers, self.facts)
        if plain(twins) == said.out:
            return []
        return [f"{row.typed}: prints\n{said.out}\nand the twin\n{twins}"]

    async def left_otherwise(self, row: Row) -> list[str]:
        """The git remotes of the directory."""
        done = await run("git", "remote", "-v", cwd=self.directory, environment=os.environ)
        lines = [line.split() for line in done.out.splitlines()]
        remotes = {name: url for name, url, _ in lines}
        if row.remotes is None or remotes == {
            name: filled(url, self.facts) for name, url in row.remotes.items()
        }:
            return []
        return [f"{row.typed}: leaves the git remotes {remotes}"]


def theirs(headers: dict[str, str]) -> dict[str, str]:
    own = {name for name in headers if name in OWN or name.startswith("Sec-") or headers[name] == "Upgrade"}
    return {name: value for name, value in headers.items() if name not in own}


def plain(out: str) -> str:
    """Without the animation, colours and blanks at the end of a line; the parts of a config sorted, because
    the client prints them in an order of chance."""
    out = re.sub(r"(?:[.o]{3}\x08{3})+", "", out)
    out = re.sub(r"\x1b\[\d+m", "", out)
    out = "\n".join(line.rstrip() for line in out.split("\n"))
    return "---\n".join(sorted(out.split("---\n")))


def complaint(err: str) -> str:
    return err.removeprefix("Error: ").removesuffix("\n")


@pytest.mark.e2e
@pytest.mark.timeout(300)
async def test_the_client_itself_agrees_with_the_table(
    platform: Platform, program: str, tmp_path: Path
) -> None:
    (tmp_path / ".drycc").mkdir()  # the client doesn't make it
    story = await begin(platform)
    version = await run(program, "version", cwd=tmp_path, environment={"HOME": str(tmp_path)})
    async with recording(platform.http_port) as recorder:
        client = Official(program, recorder, tmp_path, story.repository)
        client.facts = story.facts(version.out.strip(), f"http://localhost:{recorder.port}", tmp_path)
        await story.tell(STORY, client)
    assert not client.faults, "\n".join(client.faults)
