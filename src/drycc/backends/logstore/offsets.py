"""How far into each pod's file the lines go: a table that the head of every segment carries on."""

import json
from typing import Final

from drycc.backends.logstore.base import Reached
from drycc.backends.logstore.blocks import IS_HEAD, Block, compress, decompress

ENDED_PODS: Final = 256  # whose end is remembered


def reach(table: dict[str, Reached], block: Block) -> None:
    if block.pod:
        table.pop(block.pod, None)  # so that the order is by time
        table[block.pod] = Reached(block.pod, block.offset, block.is_last)


def drop_ended(table: dict[str, Reached]) -> dict[str, Reached]:
    """The table without the pods that ended long ago."""
    ended = [pod for pod, place in table.items() if place.is_last]
    left_out = set(ended[:-ENDED_PODS])
    return {pod: place for pod, place in table.items() if pod not in left_out}


def make_head(number: int, table: dict[str, Reached]) -> Block:
    places = [[pod, place.offset, place.is_last] for pod, place in table.items()]
    return Block(number, 0, compress(json.dumps(places).encode()), flags=IS_HEAD)


def read_head(head: Block) -> dict[str, Reached]:
    return {
        pod: Reached(pod, offset, is_last) for pod, offset, is_last in json.loads(decompress(head.payload))
    }
