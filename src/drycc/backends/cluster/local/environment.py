"""What a pod's process finds in its environment."""

import sys
from collections.abc import Mapping
from pathlib import Path

from drycc.backends.cluster.base import SHELLS_OWN
from drycc.backends.cluster.local.directory import PodDirectory, PodRecord
from drycc.backends.cluster.local.site import Site

POD, INSTANCE = "DRYCC_POD", "DRYCC_INSTANCE"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
BUILDER = (sys.executable, "-m", "drycc", "build-image")


def app_environment(
    site: Site, directory: PodDirectory, record: PodRecord, env: Mapping[str, str], venv: str | None
) -> dict[str, str]:
    """The app's variables over our defaults; those that tell it where it runs are ours."""
    named = {name: value for name, value in env.items() if name not in SHELLS_OWN}
    made = _defaults(directory) | {"PYTHONUNBUFFERED": "1"} | named
    if venv:
        made |= {"VIRTUAL_ENV": venv, "PATH": f"{venv}/bin:{made['PATH']}"}
    place = {"PORT": str(record.port), "CONTAINER_IP": "127.0.0.1"}
    return made | place | _tokens(site, record)


def build_environment(site: Site, directory: PodDirectory, record: PodRecord) -> dict[str, str]:
    """Nothing of ours but what a build may see, and where its input and output are."""
    image = site.image(record.image)
    places: dict[str, str | Path] = {
        "DRYCC_SOURCE": directory.source,
        "DRYCC_IMAGE_DIR": image,
        "DRYCC_VENVS_DIR": site.venvs / record.app,
        "DRYCC_PYTHON": site.python,
        "DRYCC_RESULT": directory.result,
    }
    named = {name: str(place) for name, place in places.items()}
    return dict(site.build_env) | _defaults(directory) | named | _tokens(site, record)


def _defaults(directory: PodDirectory) -> dict[str, str]:
    return {
        "PATH": PATH,
        "LANG": "C.UTF-8",
        "PWD": str(directory.root),
        "HOME": str(directory.path / "home"),
        "TMPDIR": str(directory.path / "tmp"),
    }


def _tokens(site: Site, record: PodRecord) -> dict[str, str]:
    """By these a pod's processes are found again."""
    return {POD: record.id, INSTANCE: site.instance}
