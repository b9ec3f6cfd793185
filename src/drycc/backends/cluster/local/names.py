"""Names of pods and of templates."""

from drycc.backends.cluster.base import WorkloadSpec
from drycc.kit.ids import short_hash, suffix

LONGEST = 63
LONGEST_PTYPE = 15  # of a process type in a name that has to be cut


def name_pod(app: str, ptype: str, release: int) -> str:
    """`<app>-<ptype>-<hash of both and the release>-<random>`; a long app or type is cut, the hash stays."""
    tail = f"-{short_hash(app, ptype, str(release))}-{suffix()}"
    room = LONGEST - len(tail) - 1
    if len(app) + len(ptype) > room:
        ptype = ptype[: max(LONGEST_PTYPE, room - len(app))].rstrip("-")
        app = app[: room - len(ptype)].rstrip("-")
    return f"{app}-{ptype}{tail}"


def name_one_off(app: str) -> str:
    """`<app>-run-<random>-<random>`; a long app is cut and hashed."""
    tail = f"-run-{suffix()}-{suffix()}"
    if len(app) + len(tail) > LONGEST:
        mark = short_hash(app, length=5)
        app = f"{app[: LONGEST - len(tail) - len(mark) - 1].rstrip('-')}-{mark}"
    return app + tail


def name_template(spec: WorkloadSpec) -> str:
    """What tells pods of one (release, restarted_at) from all others of the process type."""
    return f"{spec.release}@{spec.restarted_at.isoformat() if spec.restarted_at else ''}"
