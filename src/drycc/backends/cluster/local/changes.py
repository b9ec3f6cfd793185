"""Who waits for news of apps."""

import asyncio
from collections.abc import AsyncIterator
from weakref import WeakSet


class Subscription(AsyncIterator[str]):
    """Names of apps that changed since it was made, each once until it is taken."""

    def __init__(self) -> None:
        self.apps: dict[str, None] = {}
        self.arrived = asyncio.Event()

    async def __anext__(self) -> str:
        """A cancelled wait loses nothing, so it may stand under a deadline."""
        while not self.apps:
            self.arrived.clear()
            await self.arrived.wait()
        app = next(iter(self.apps))
        del self.apps[app]
        return app

    async def aclose(self) -> None:
        """Nothing to free: a subscription that nobody holds is forgotten by itself."""


class Changes:
    def __init__(self) -> None:
        self._subscriptions: WeakSet[Subscription] = WeakSet()

    def tell(self, app: str) -> None:
        for subscription in self._subscriptions:
            subscription.apps[app] = None
            subscription.arrived.set()

    def subscribe(self) -> Subscription:
        subscription = Subscription()
        self._subscriptions.add(subscription)
        return subscription
