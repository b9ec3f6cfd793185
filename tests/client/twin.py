"""The wire twin: sends a row's requests as the official client sends them, and prints what it would print."""

import asyncio
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from string import Formatter
from typing import Any

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosedOK, InvalidStatus

from tests.client.prints import Answer, Facts
from tests.client.table import Call, Row
from tests.platform import exchange

KINDS = {
    "time": r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ",
    "uuid": r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}",
    "seconds": r"\d+",
    "number": r"\d+",
    "word": r"\S+",
    "text": r".*",
    "lines": r"(.*\n)*",
    "name": r"[a-z0-9]+(-[a-z0-9]+)*",
    "generated": r"[a-z]{6}-[a-z]{8}",
    "token": r"[0-9A-Za-z]{128}",
    "fuzzy": r"[0-9A-Za-z]{14}\.\.\.[0-9A-Za-z]{14}",
}


@dataclass(frozen=True)
class Said:
    """What a command did: its requests with their answers, and what it printed and complained."""

    answers: Sequence[Answer]
    out: str
    error: str


@dataclass
class Twin:
    """Stands in for the official client; what it knows is in `facts`."""

    facts: dict[str, str]
    port: int
    faults: list[str] = field(default_factory=list)

    async def say(self, row: Row) -> Said:
        """Send the row's requests, one connection each; stops at the first that is refused."""
        answers: list[Answer] = []
        for call in row.calls:
            answers.append(await self.send(call))
            if answers[-1].status != call.status:
                wanted = f"{call.method} {filled(call.path, self.facts)}: {call.status} is needed"
                self.faults.append(f"{row.typed}: {wanted}, not {answers[-1].status} {answers[-1].text}")
                break
            learn(call, answers[-1], self.facts)
        is_refused = bool(answers) and not row.calls[len(answers) - 1].is_bare
        error = refusal(answers[-1]) if is_refused else ""
        return Said(
            answers, rendered(row, answers, self.facts, error), error or filled(row.error, self.facts)
        )

    async def send(self, call: Call) -> Answer:
        headers = headers_of(call, self.facts)
        path, body = filled(call.path, self.facts), body_of(call, self.facts)
        if call.method == "WS":
            return await self.listen(path, headers, body)
        host = {"Host": f"localhost:{self.port}"}
        got = await asyncio.to_thread(exchange, self.port, call.method, path, host | headers, body)
        return Answer(got.status, got.headers, got.text)

    async def listen(self, path: str, headers: Mapping[str, str], body: bytes | None) -> Answer:
        """Open a websocket, send the first message, take all that comes until a normal close."""
        more = {name: value for name, value in headers.items() if name not in ("User-Agent", "Origin")}
        messages: list[str] = []
        try:
            async with connect(
                f"ws://127.0.0.1:{self.port}{path}",
                origin=self.facts["controller"],  # type: ignore[arg-type]
                additional_headers=more,
                user_agent_header=headers["User-Agent"],
                compression=None,
                proxy=None,
            ) as socket:
                await socket.send((body or b"").decode())
                try:
                    while True:
                        message = await socket.recv()
                        messages.append(message if isinstance(message, str) else message.decode())
                except ConnectionClosedOK:
                    return Answer(101, messages=messages)
        except InvalidStatus as refused:
            return Answer(refused.response.status_code, text=refused.response.body.decode())


def headers_of(call: Call, facts: Facts) -> dict[str, str]:
    """Every header that the client sets, but Host and the lengths."""
    agent = f"Drycc Client {facts['client']}"
    token = {"Authorization": f"token {facts['token']}"} if "token" in facts else {}
    if call.method == "WS":
        return {"User-Agent": agent, "Origin": facts["controller"], "X-Drycc-Builder-Auth": "", **token}
    headers = {"User-Agent": agent, "Accept-Encoding": "gzip", "Connection": "close"}
    return headers if call.is_bare else headers | token | {"Content-Type": "application/json"}


def body_of(call: Call, facts: Facts) -> bytes | None:
    """The bytes; a POST without a body still says that its length is 0."""
    if call.body is None:
        return b"" if call.method == "POST" else None
    return json.dumps(filled_in(call.body, facts), separators=(",", ":")).encode()


def learn(call: Call, answer: Answer, facts: dict[str, str]) -> None:
    for name, path in call.learns.items():
        facts[name] = str(found(answer.data, path))


def found(data: Any, path: str) -> Any:
    """`results/alias=laptop/uuid`: a key, or the item of an array that has this value."""
    for step in path.split("/"):
        name, _, value = step.partition("=")
        data = next((item for item in data if item[name] == value), {}) if value else data.get(name)
    return data


def refusal(answer: Answer) -> str:
    """The text that the client makes of a status of 400 and more."""
    status, text = answer.status, answer.text
    fixed = {
        401: "Unauthorized: Missing or Invalid Token",
        403: "you do not have permission to perform this action",
        404: text or "Not Found",
        405: "Method Not Allowed",
        500: "Internal Server Error",
    }
    if status < 400:
        return ""
    if status == 400 and (known := recognised(answer)):
        return known
    return fixed.get(status, f"Unknown Error ({status}): {text}")


FIELDS = {
    "non_field_errors": "Unable to log in with provided credentials.",
    "id": "Application with this id already exists.",
}
DETAILS = {"version cannot be below 0": "The given version is invalid"}


def recognised(answer: Answer) -> str:
    """The rules of the client that the table needs: a field holds exactly this, `detail` contains that."""
    for name, text in FIELDS.items():
        if text in answer.data.get(name, []):
            return text
    detail = str(answer.data.get("detail", ""))
    return next((told for part, told in DETAILS.items() if part in detail), "")


def rendered(row: Row, answers: Sequence[Answer], facts: Facts, error: str = "") -> str:
    """The print: made of the answers, where it depends on them and none was a refusal."""
    if row.shows and not error:
        return row.shows(answers, facts)
    return filled(row.prints, facts)


# templates: `{name}` is a fact, `{:kind}` anything of that kind, `{name:kind}` a fact of that kind


def filled(template: str, facts: Facts) -> str:
    made = ""
    for text, name, kind, _ in Formatter().parse(template):
        made += text + (facts[name] if name else "0" if kind else "")
    return made


def filled_in(body: Any, facts: Facts) -> Any:
    if isinstance(body, dict):
        return {name: filled_in(value, facts) for name, value in body.items()}
    if isinstance(body, list):
        return [filled_in(value, facts) for value in body]
    return filled(body, facts) if isinstance(body, str) else body


def pattern(template: str, facts: Facts) -> re.Pattern[str]:
    made = ""
    for text, name, kind, _ in Formatter().parse(template):
        made += re.escape(text)
        if name:
            made += (f"(?={KINDS[kind]})" if kind else "") + re.escape(facts[name])
        elif kind:
            made += KINDS[kind]
    return re.compile(made)


def folded(text: str) -> str:
    """Columns are as wide as what stands in them: one blank for many, none at the end of a line."""
    return "\n".join(re.sub(" +", " ", line).rstrip() for line in text.split("\n"))


def differs(row: Row, said: Said, facts: Facts) -> list[str]:
    """How what was printed differs from what the row expects."""
    faults = []
    if not matches(row, folded(said.out), facts):
        faults.append(f"{row.typed}: prints\n{said.out}\nwhere the row has\n{row.prints}")
    if not pattern(row.error, facts).fullmatch(said.error):
        faults.append(f"{row.typed}: complains {said.error!r} where the row has {row.error!r}")
    return faults


def matches(row: Row, out: str, facts: Facts) -> bool:
    if row.is_ordered:
        return bool(pattern(folded(row.prints), facts).fullmatch(out))
    lines, wanted = out.splitlines(), folded(row.prints).splitlines()
    for line in wanted:
        fitting = next((one for one in lines if pattern(line, facts).fullmatch(one)), None)
        if fitting is None:
            return False
        lines.remove(fitting)
    return not lines
