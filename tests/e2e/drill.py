"""What takes longer than CI may: `python -m tests.e2e.drill [name ...]`, all without a name."""

import argparse
import asyncio
from collections.abc import Callable, Coroutine

from tests.e2e.drill_backup import drill_backup
from tests.e2e.drill_build_log import drill_build_log
from tests.e2e.drill_followers import drill_followers
from tests.e2e.drill_kill import drill_kill
from tests.e2e.drill_lines import drill_lines
from tests.e2e.drill_property import drill_property
from tests.e2e.drill_storm import drill_storm
from tests.e2e.drill_trouble import drill_trouble
from tests.e2e.drill_workers import drill_workers

DRILLS: dict[str, Callable[[], Coroutine[None, None, None]]] = {
    "backup": drill_backup,
    "build-log": drill_build_log,
    "followers": drill_followers,
    "kill": drill_kill,
    "lines": drill_lines,
    "property": drill_property,
    "storm": drill_storm,
    "trouble": drill_trouble,
    "workers": drill_workers,
}


def main() -> None:
    parser = argparse.ArgumentParser("drill", description=__doc__)
    parser.add_argument("names", nargs="*", choices=[*DRILLS, []], help="all when none is named")
    for name in parser.parse_args().names or DRILLS:
        print(f"== {name}", flush=True)
        asyncio.run(DRILLS[name]())


if __name__ == "__main__":
    main()
