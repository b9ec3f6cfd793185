"""What the controller of an app does next with one process type. Pure.

`pods` are those of the type that were not told to stop; `serving` names the template that gets
requests, None before the first one.
"""

from collections.abc import Sequence

from drycc.backends.cluster.base import WorkloadSpec
from drycc.backends.cluster.local.names import name_template
from drycc.backends.cluster.local.pod import LocalPod


def of_template(pods: Sequence[LocalPod], template: str | None) -> list[LocalPod]:
    return [pod for pod in pods if pod.record.template == template]


def count_missing(spec: WorkloadSpec | None, pods: Sequence[LocalPod]) -> int:
    """How many pods of the applied template are to be created."""
    if spec is None or spec.is_held:
        return 0
    return max(0, spec.replicas - len(of_template(pods, name_template(spec))))


def may_restart(pod: LocalPod, spec: WorkloadSpec | None, serving: str | None) -> bool:
    """A pod that has exited goes on if it serves, or will and is not held."""
    if spec is None:
        return False
    if pod.record.template == serving:
        return True
    return pod.record.template == name_template(spec) and not spec.is_held


def choose_serving(spec: WorkloadSpec | None, pods: Sequence[LocalPod], serving: str | None) -> str | None:
    """The applied template once enough of its pods are ready, or any while nothing else could serve."""
    if spec is None:
        return None
    applied = name_template(spec)
    ready = sum(pod.is_ready for pod in of_template(pods, applied))
    is_complete = ready >= spec.replicas and not spec.is_held
    is_better_than_nothing = ready > 0 and not of_template(pods, serving)
    return applied if is_complete or is_better_than_nothing else serving


def choose_stops(
    spec: WorkloadSpec | None, pods: Sequence[LocalPod], serving: str | None, known: frozenset[str]
) -> list[LocalPod]:
    """Pods that neither serve nor will; one that exited and whose template we do not know is such, too."""
    if spec is None:
        return list(pods)
    applied = name_template(spec)
    kept = (applied, serving)
    stops = [pod for pod in pods if pod.record.template not in kept or _is_lost(pod, known)]
    rest = [pod for pod in pods if pod not in stops]
    current = of_template(rest, applied)
    current.sort(key=lambda pod: (pod.is_ready, -pod.record.created))
    return stops + current[: max(0, len(current) - spec.replicas)]


def _is_lost(pod: LocalPod, known: frozenset[str]) -> bool:
    return pod.process is None and pod.task is None and pod.record.template not in known
