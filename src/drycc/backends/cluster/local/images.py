"""Images and virtual environments on disk: what starts from them, and which may go.

An image is `images/<app>/<build id>/` with `tree/`; its file `complete` is written last and names
the image's virtual environment, `venvs/<app>/<digest>/`, when it has one.
"""

import asyncio
import time
from collections.abc import Collection, Mapping
from pathlib import Path

from drycc.backends.cluster.local import environment
from drycc.backends.cluster.local import pod as pods
from drycc.backends.cluster.local.pod import Launch, LocalPod
from drycc.backends.cluster.local.site import Site
from drycc.kit.files import read_json, remove_leftovers, remove_tree

YOUNG = 60.0  # seconds after its completion for which an image is never collected
NO_IMAGE = "this cluster runs only images built from a push; there is no image {}"


class Images:
    def __init__(self, site: Site) -> None:
        self._site = site

    async def start_app(self, pod: LocalPod, command: str, env: Mapping[str, str]) -> None:
        """Run the command in a copy of the pod's image; without that image the pod has ended."""
        image = self._site.image(pod.record.image)
        is_own = pod.record.image.startswith(f"{pod.record.app}:")
        complete = await asyncio.to_thread(read_json, image / "complete") if is_own else None
        if complete is None:
            return await asyncio.to_thread(pods.refuse, pod, NO_IMAGE.format(pod.record.image))
        made = environment.app_environment(self._site, pod.directory, pod.record, env, complete.get("venv"))
        launch = Launch(("/bin/sh", "-c", command), image / "tree", made, size=complete.get("size", 0))
        await pods.start(pod, launch)

    async def has(self, image: str) -> bool:
        return await asyncio.to_thread((self._site.image(image) / "complete").is_file)

    async def start_build(self, pod: LocalPod, source: Path | None) -> None:
        """Run the image builder on the source."""
        made = environment.build_environment(self._site, pod.directory, pod.record)
        await pods.start(pod, Launch(environment.BUILDER, None, made, source))

    async def drop_unfinished(self, image: str) -> None:
        """Remove what an ended build has left of its image and of a virtual environment, if it left half."""
        await asyncio.to_thread(self._drop_unfinished, self._site.image(image))

    def _drop_unfinished(self, image: Path) -> None:
        venvs = _list_directories(self._site.venvs / image.parent.name)
        for path in (image, *venvs):
            if path.is_dir() and not (path / "complete").is_file():
                remove_tree(path)

    async def count(self) -> int:
        return await asyncio.to_thread(lambda: len(list(self._site.images.glob("*/*/complete"))))

    async def remove(self, path: Path) -> None:
        await asyncio.to_thread(remove_tree, path)

    async def remove_app(self, app: str) -> None:
        for kind in (self._site.images, self._site.venvs):
            await self.remove(kind / app)

    async def collect(self, kept: Collection[str], building: Collection[str]) -> None:
        """Remove all images but `kept`, and virtual environments that no image left names.

        Nothing of the apps `building` is touched: a build writes there, or uses what it finds.
        """
        await asyncio.to_thread(self._collect, frozenset(kept), frozenset(building))

    def _collect(self, kept: frozenset[str], building: frozenset[str]) -> None:
        for parent in (self._site.images, self._site.venvs):
            for app in _list_directories(parent):
                remove_leftovers(app)
        for app in _list_directories(self._site.images):
            if app.name in building:
                continue
            for image in _list_directories(app):
                if f"{app.name}:{image.name}" not in kept and not _is_young(image):
                    remove_tree(image)
        for app in _list_directories(self._site.venvs):
            if app.name not in building:
                self._collect_venvs(app)

    def _collect_venvs(self, app: Path) -> None:
        completes = (self._site.images / app.name).glob("*/complete")
        used = {(read_json(complete) or {}).get("venv") for complete in completes}
        for venv in _list_directories(app):
            if str(venv) not in used:
                remove_tree(venv)


def _is_young(image: Path) -> bool:
    """Its release may be on record since a moment ago, and not be known to who asked for the sweep."""
    try:
        return time.time() - (image / "complete").stat().st_mtime < YOUNG
    except FileNotFoundError:
        return False


def _list_directories(parent: Path) -> list[Path]:
    if not parent.is_dir():
        return []
    return [path for path in parent.iterdir() if path.is_dir() and not path.name.startswith(".")]
