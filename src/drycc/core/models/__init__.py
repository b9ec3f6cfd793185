"""The tables, one noun a module; importing this package knows them all."""

from drycc.core.models.app import App
from drycc.core.models.base import Base
from drycc.core.models.build import Build, BuildLine
from drycc.core.models.config import Config
from drycc.core.models.job import Job
from drycc.core.models.key import Key
from drycc.core.models.release import Release
from drycc.core.models.token import Login, Token
from drycc.core.models.user import User
from drycc.core.models.workload import Workload
from drycc.core.models.workspace import Workspace

__all__ = [
    "App",
    "Base",
    "Build",
    "BuildLine",
    "Config",
    "Job",
    "Key",
    "Login",
    "Release",
    "Token",
    "User",
    "Workload",
    "Workspace",
]
