"""The pods that requests may go to: the routing table in memory, requests in flight, idle links."""

import asyncio
import socket
from dataclasses import dataclass

from drycc.backends.cluster.local.edge.link import Link
from drycc.backends.cluster.local.edge.snapshot import Endpoint, Snapshot
from drycc.backends.cluster.local.ports import LOOPBACKS

CONNECT_WITHIN = 5.0  # seconds
MAX_IDLE_LINKS = 32  # of one pod
LINK_IDLE = 4.0  # seconds; common servers close theirs after 5


class Pod:
    """One pod, from the first snapshot that names it until its last request is over."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.in_flight = 0
        self.is_retired = False
        self._idle: list[Link] = []
        self._loopback = LOOPBACKS[0]  # where it listens, as far as known
        self._drained: asyncio.Event | None = None

    def take(self) -> Link | None:
        """The idle link that was used last."""
        while self._idle:
            link = self._idle.pop()
            if link.is_usable:
                return link
        return None

    def put(self, link: Link) -> None:
        """Keep a link for another request, unless there are enough or the pod goes away."""
        if self.is_retired or len(self._idle) >= MAX_IDLE_LINKS:
            link.close()
        else:
            self._idle.append(link)

    async def connect(self) -> Link:
        """A new link; raises OSError when the pod does not answer.

        An idle one makes room for it: a server that handles one connection at a time would not
        answer on the new one while it waits on the old one.
        """
        if idle := self.take():
            idle.close()
        try:
            return await _open_link(self._loopback, self.endpoint.port)
        except ConnectionRefusedError:
            other = next(one for one in LOOPBACKS if one != self._loopback)
            link = await _open_link(other, self.endpoint.port)
            self._loopback = other
            return link

    def begin(self) -> None:
        self.in_flight += 1

    def end(self) -> None:
        """A request that began here is over."""
        self.in_flight -= 1
        if self.in_flight == 0 and self._drained is not None:
            self._drained.set()
            self._drained = None

    async def drain(self) -> None:
        """Wait until no request is in flight."""
        if self.in_flight:
            self._drained = self._drained or asyncio.Event()
            await self._drained.wait()

    def retire(self) -> None:
        """No new request comes here."""
        self.is_retired = True
        self.close_idle(float("inf"))

    def close_idle(self, before: float) -> None:
        """Close links that were idle since before this moment of the loop's clock."""
        if not self._idle:
            return
        for link in self._idle:
            if link.idle_since <= before:
                link.close()
        self._idle = [link for link in self._idle if link.is_usable]


async def _open_link(loopback: tuple[socket.AddressFamily, str], port: int) -> Link:
    family, address = loopback
    loop = asyncio.get_running_loop()
    connection = socket.socket(family, socket.SOCK_STREAM)
    try:
        connection.setblocking(False)
        async with asyncio.timeout(CONNECT_WITHIN):
            await loop.sock_connect(connection, (address, port))
            _, link = await loop.create_connection(Link, sock=connection)
    except BaseException:
        connection.close()
        raise
    return link


@dataclass(slots=True)
class Route:
    """Where an app's requests go."""

    app: str
    is_routable: bool
    replicas: int
    pods: list[Pod]
    turn: int = 0

    def pick(self, tried: set[Pod]) -> Pod | None:
        """The pod with the fewest requests in flight, in turn where several are equal."""
        left = [pod for pod in self.pods if pod not in tried] if tried else self.pods
        if len(left) < 2:
            return left[0] if left else None
        fewest = min(pod.in_flight for pod in left)
        equal = [pod for pod in left if pod.in_flight == fewest]
        self.turn += 1
        return equal[self.turn % len(equal)]


class Table:
    """The last snapshot, in the form that a request needs."""

    def __init__(self) -> None:
        self.generation = 0
        self._hosts: dict[str, Route] = {}
        self._pods: dict[Endpoint, Pod] = {}

    def find(self, host: str) -> Route | None:
        return self._hosts.get(host)

    def turn(self, snapshot: Snapshot) -> None:
        """From now on requests go where this snapshot says; those in flight stay where they are."""
        pods: dict[Endpoint, Pod] = {}
        routes: dict[str, Route] = {}
        for app, entry in snapshot.apps.items():
            for endpoint in entry.pods:
                pods[endpoint] = self._pods.get(endpoint) or Pod(endpoint)
            serving = [pods[endpoint] for endpoint in entry.pods]
            routes[app] = Route(app, entry.is_routable, entry.replicas, serving)
        self._hosts = {host: routes[app] for host, app in snapshot.hosts.items() if app in routes}
        self._retire(pods)
        self.generation = snapshot.generation

    async def drain(self, name: str) -> None:
        """Wait until no request to this pod is in flight; it may have been on several ports."""
        for pod in [pod for pod in self._pods.values() if pod.endpoint.pod == name]:
            await pod.drain()

    def sweep(self, now: float) -> None:
        """Close links that are idle for long; forget retired pods without requests."""
        for endpoint, pod in list(self._pods.items()):
            pod.close_idle(now - LINK_IDLE)
            if pod.is_retired and not pod.in_flight:
                del self._pods[endpoint]

    def _retire(self, serving: dict[Endpoint, Pod]) -> None:
        """Keep pods that left the snapshot until their last request is over."""
        left = {endpoint: pod for endpoint, pod in self._pods.items() if endpoint not in serving}
        for pod in left.values():
            pod.retire()
        for pod in serving.values():
            pod.is_retired = False
        self._pods = serving | {endpoint: pod for endpoint, pod in left.items() if pod.in_flight}
