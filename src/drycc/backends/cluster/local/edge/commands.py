"""The edge's control socket: one command a connection, one line back.

hello                  <pid> <listen> <version>
apply <generation>     applied <generation>    requests go where the snapshot file says
drained <pod> <s>      drained                 nothing is in flight there, or so many seconds are over
socket                 socket                  and with it the listening socket, by SCM_RIGHTS
"""

import asyncio
import os
import socket
from typing import TYPE_CHECKING

from drycc import __version__
from drycc.errors import DryccError
from drycc.kit.aio import within

if TYPE_CHECKING:
    from drycc.backends.cluster.local.edge.server import Server

READ_WITHIN = 5.0  # seconds


async def listen_control(
    control: socket.socket, server: "Server", listener: socket.socket, listen: str
) -> asyncio.Server:
    """Answer commands on this listening socket."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(READ_WITHIN):
                words = (await reader.readline()).decode().split()
            match words:
                case ["socket"]:
                    _send_listener(writer, listener)
                case ["hello"]:
                    writer.write(f"{os.getpid()} {listen} {__version__}\n".encode())
                case _:
                    writer.write(f"{await _carry_out(server, words)}\n".encode())
        except (OSError, ValueError):
            pass  # the asker is gone, silent or none of ours
        finally:
            writer.close()

    return await asyncio.start_unix_server(answer, sock=control)


async def _carry_out(server: "Server", words: list[str]) -> str:
    try:
        match words:
            case ["apply", wanted]:
                generation = await server.turn()
                return f"applied {wanted}" if generation >= int(wanted) else f"stale {generation}"
            case ["drained", pod, seconds]:
                await within(float(seconds), server.table.drain(pod))
                return "drained"
    except DryccError as error:
        return f"failed {error}"
    return "unknown command"


def _send_listener(writer: asyncio.StreamWriter, listener: socket.socket) -> None:
    connection = writer.get_extra_info("socket").dup()
    with connection:
        socket.send_fds(connection, [b"socket\n"], [listener.fileno()])
