"""`dryccd build-image`: from a source tar to an image directory, as a program of its own.

It only prints and holds no credential. An image is `tree/` and, when all else is on disk, the file
`complete`; a virtual environment stands at its final path, since a moved one loses its scripts.
"""

import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from drycc.build.image import python
from drycc.build.image.disk import digest_tree, measure_tree, read_complete, seal, unpack
from drycc.errors import BuildFailed, Unavailable
from drycc.kit.disk import find_trouble
from drycc.kit.files import delete_tree, write_json


@dataclass(frozen=True, slots=True)
class Places:
    """Where everything is; the image directory's name is the build's id."""

    source: Path
    image: Path
    venvs: Path
    python: str
    result: Path


def main(environ: Mapping[str, str]) -> int:
    """Build the image that the `DRYCC_…` variables describe; gives the exit status."""
    places = Places(
        source=Path(environ["DRYCC_SOURCE"]),
        image=Path(environ["DRYCC_IMAGE_DIR"]),
        venvs=Path(environ["DRYCC_VENVS_DIR"]),
        python=environ.get("DRYCC_PYTHON") or sys.executable,
        result=Path(environ["DRYCC_RESULT"]),
    )
    try:
        complete = read_complete(places.image) or build(places)
        write_json(places.result, complete)
    except (BuildFailed, Unavailable, OSError) as failure:
        reason = describe(failure)
        delete_tree(places.image)  # first, so that there is space to say why
        for line in reason.split("\n"):
            say(f" !     {line}")
        return 1
    say(f"-----> Image {complete['digest'][:19]}")
    return 0


def build(places: Places) -> dict[str, Any]:
    """Make the image from nothing, also where an earlier attempt died; gives what `complete` says."""
    delete_tree(places.image)
    tree = places.image / "tree"
    tree.mkdir(parents=True)
    unpack(places.source, tree)
    venv = python.install(tree, places.venvs, places.python, places.image.name, say)
    complete = {
        "digest": digest_tree(tree, str(venv or "")),
        "venv": str(venv) if venv else None,
        "size": measure_tree(tree),
    }
    seal(places.image, complete)
    return complete


def describe(failure: Exception) -> str:
    """The sentence for the pusher; raises what is a fault of ours."""
    if trouble := find_trouble(failure):
        return str(trouble)
    if isinstance(failure, OSError):
        raise failure
    return str(failure)


def say(line: str) -> None:
    with suppress(OSError):  # the disk that takes the output may be full
        print(line, flush=True)
