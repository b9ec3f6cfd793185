"""What a controller's pods amount to, in the port's words. Pure."""

from collections.abc import Collection

from drycc.backends.cluster.base import Observed, ObservedWorkload, WorkloadSpec
from drycc.backends.cluster.local.controller import AppController
from drycc.backends.cluster.local.names import name_template
from drycc.backends.cluster.local.pod import LocalPod


def observe_app(controller: AppController, served: Collection[str]) -> Observed:
    """`served` names the pods that get requests, as the edge has confirmed."""
    specs = controller.applied()
    ptypes = sorted({*specs, *(pod.record.ptype for pod in controller.pods.present)})
    workloads = {ptype: _observe(controller, ptype, specs.get(ptype), served) for ptype in ptypes}
    return Observed(controller.record.app, controller.record.generation, workloads)


def _observe(
    controller: AppController, ptype: str, spec: WorkloadSpec | None, served: Collection[str]
) -> ObservedWorkload:
    pods = [pod for pod in controller.pods.present if pod.record.ptype == ptype]
    staying = [pod for pod in pods if not pod.is_stopping]
    current = [pod for pod in staying if is_current(pod, spec)]
    ready = [pod for pod in current if pod.is_ready]
    is_routed = ptype == controller.record.routed
    serving = [pod for pod in ready if pod.record.name in served] if is_routed else ready
    return ObservedWorkload(
        ptype=ptype,
        release=spec.release if spec else max(pod.record.release for pod in pods),
        replicas=spec.replicas if spec else 0,
        updated=sum(pod.process is not None for pod in current),
        ready=len(ready),
        serving=len(serving),
        old=len(staying) - len(current),
        exits=controller.exits.get(ptype, 0),
        pods=tuple(pod.view(is_current=is_current(pod, spec)) for pod in pods),
    )


def is_current(pod: LocalPod, spec: WorkloadSpec | None) -> bool:
    return spec is not None and pod.record.template == name_template(spec)
