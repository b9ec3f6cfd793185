"""Names on a laptop: ssh must find the builder of a controller at `localhost`.

The client derives the builder's host from the controller's; `*.localhost` does not resolve for
ssh on a bare Debian, so two lines of ssh configuration say where it is.
"""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

BUILDER = "localhost-builder"
LINES = "Host *-builder.localhost localhost-builder\n  HostName 127.0.0.1\n"


async def is_builder_known() -> bool:
    """Whether ssh reaches the builder by the name that the client uses."""
    loop = asyncio.get_running_loop()
    try:
        await loop.getaddrinfo(BUILDER, 2222)
    except OSError:
        return await asyncio.to_thread(_is_configured)
    return True


def _is_configured() -> bool:
    try:
        shown = subprocess.run(
            ["ssh", "-G", BUILDER], capture_output=True, text=True, timeout=10, check=False
        )
    except FileNotFoundError:
        return False
    return f"hostname {BUILDER}\n" not in shown.stdout


async def set_up_names() -> None:
    """Append the two lines to the user's ssh configuration, after asking; does nothing when it is there."""
    if await is_builder_known():
        print(f"ssh finds {BUILDER} already; nothing to do")
        return
    config = Path(os.path.expanduser("~/.ssh/config"))
    print(f"These lines go to the end of {config}:\n\n{LINES}")
    print("Type yes to append them: ", end="", flush=True)
    if (await asyncio.to_thread(sys.stdin.readline)).strip() != "yes":
        print("Nothing was changed.")
        return
    await asyncio.to_thread(_append, config)
    print("Done.")


def _append(config: Path) -> None:
    config.parent.mkdir(mode=0o700, exist_ok=True)
    text = config.read_text() if config.exists() else ""
    separator = "" if not text or text.endswith("\n") else "\n"
    with os.fdopen(os.open(config, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "w") as file:
        file.write(separator + LINES)
