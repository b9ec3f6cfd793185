"""Where the local cluster lives and by which settings."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Site:
    data: Path
    instance: str  # tells our pods from those of another installation
    python: str  # interpreter for Python apps
    build_env: Mapping[str, str]  # what a build may see of our environment
    grace: float  # seconds from SIGTERM to SIGKILL where a pod has no grace of its own
    backoff: float  # seconds before a crashed pod starts again; doubles
    backoff_cap: float  # seconds

    @property
    def pods(self) -> Path:
        return self.data / "pods"

    @property
    def images(self) -> Path:
        return self.data / "images"

    @property
    def venvs(self) -> Path:
        return self.data / "venvs"

    @property
    def apps(self) -> Path:
        return self.data / "apps"

    def image(self, image: str) -> Path:
        """Where the image `<app>:<build id>` lies; a name of another form leads nowhere."""
        app, _, build = image.partition(":")
        name = Path(app, build) if app.strip(".") and "/" not in app and build.isdecimal() else Path(".none")
        return self.images / name

    def make(self) -> None:
        for directory in (self.pods, self.images, self.venvs, self.apps):
            directory.mkdir(parents=True, exist_ok=True)
        self.pods.chmod(0o700)
