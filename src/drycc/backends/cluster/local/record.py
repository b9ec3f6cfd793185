"""What the local cluster keeps of an app besides its pods: a generation, who serves, and its hosts."""

from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Self

from drycc.backends.cluster.base import RouteTable
from drycc.kit.files import read_json, write_json


@dataclass(slots=True)
class AppRecord:
    """`apps/<app>.json`. It holds no environment, so after our restart specs must be applied again;
    routes must not wait for that, or one app's change would cut off all others."""

    app: str
    generation: int = 0
    serving: dict[str, str] = field(default_factory=dict)  # process type → template that gets requests
    hosts: tuple[str, ...] = ()
    routed: str = "web"  # the process type that the hosts lead to
    is_routable: bool = True

    def route(self, table: RouteTable) -> None:
        self.hosts, self.routed, self.is_routable = tuple(table.hosts), table.ptype, table.is_routable

    def save(self, apps: Path) -> None:
        write_json(apps / f"{self.app}.json", asdict(self))

    @classmethod
    def load(cls, path: Path) -> Self | None:
        values = read_json(path)
        if values is None or set(values) != {item.name for item in fields(cls)}:
            return None
        return cls(**values | {"hosts": tuple(values["hosts"])})
