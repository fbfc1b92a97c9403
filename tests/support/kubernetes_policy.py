"""Our own rules for Kubernetes objects: each takes a workload and says what is wrong, or nothing."""

import re
import tomllib
from collections.abc import Callable, Iterator
from typing import NamedTuple

from tests.support.deployment import Document, drain_seconds, pod_spec

OUR_IMAGE = "agent2389"
OUR_USER = 10001
MARGIN_SECONDS = 25
SECRET_NAME = re.compile(r"KEY|PASSWORD|TOKEN|SECRET|DATABASE_URL|LISTEN_URL|MONGODB_URL")


class Workload(NamedTuple):
    """One Deployment, StatefulSet or Job with all objects it is applied with."""

    item: Document
    objects: list[Document]

    @property
    def name(self) -> str:
        return f"{self.item['kind']}/{self.item['metadata']['name']}"

    @property
    def pod(self) -> Document:
        return pod_spec(self.item)

    @property
    def containers(self) -> list[Document]:
        found: list[Document] = [*self.pod["containers"], *self.pod.get("initContainers", [])]
        return found

    @property
    def labels(self) -> dict[str, str]:
        found: dict[str, str] = self.item["spec"]["template"]["metadata"]["labels"]
        return found

    @property
    def ours(self) -> bool:
        return all(container["image"].split(":")[0] == OUR_IMAGE for container in self.containers)

    @property
    def serves(self) -> bool:
        return bool(self.item["kind"] != "Job")


Rule = Callable[[Workload], str | None]


def workloads(objects: list[Document]) -> list[Workload]:
    return [Workload(item, objects) for item in objects if pod_spec(item)]


def _each(workload: Workload, key: str) -> Iterator[Document]:
    for container in workload.containers:
        yield container.get(key, {})


def non_root(workload: Workload) -> str | None:
    context = workload.pod.get("securityContext", {})
    if context.get("runAsNonRoot") is not True:
        return "runAsNonRoot is not set"
    if workload.ours and context.get("runAsUser") != OUR_USER:
        return f"runAsUser is not {OUR_USER}"
    return None if context.get("runAsUser") else "runAsUser is root or absent"


def seccomp(workload: Workload) -> str | None:
    profile = workload.pod.get("securityContext", {}).get("seccompProfile", {})
    return None if profile.get("type") == "RuntimeDefault" else "seccompProfile is not RuntimeDefault"


def read_only_root(workload: Workload) -> str | None:
    contexts = _each(workload, "securityContext")
    return None if all(c.get("readOnlyRootFilesystem") is True for c in contexts) else "root is writable"


def drops_all(workload: Workload) -> str | None:
    contexts = _each(workload, "securityContext")
    return None if all(c.get("capabilities") == {"drop": ["ALL"]} for c in contexts) else "keeps capabilities"


def no_escalation(workload: Workload) -> str | None:
    contexts = _each(workload, "securityContext")
    fine = all(c.get("allowPrivilegeEscalation") is False for c in contexts)
    return None if fine else "allowPrivilegeEscalation is not false"


def exact_image(workload: Workload) -> str | None:
    for container in workload.containers:
        _, _, tag = container["image"].rpartition("/")[2].partition(":")
        if not tag or tag == "latest":
            return f"image {container['image']} has no exact tag"
    return None


def memory_limit(workload: Workload) -> str | None:
    limits = [resources.get("limits", {}) for resources in _each(workload, "resources")]
    return None if all("memory" in limit for limit in limits) else "no memory limit"


def no_cpu_limit(workload: Workload) -> str | None:
    limits = [resources.get("limits", {}) for resources in _each(workload, "resources")]
    return "a CPU limit" if any("cpu" in limit for limit in limits) else None


def probes(workload: Workload) -> str | None:
    if not workload.serves:
        return None
    wanted = {"startupProbe": "/startup", "livenessProbe": "/live", "readinessProbe": "/ready"}
    for container in workload.containers:
        for probe, path in wanted.items():
            if probe not in container:
                return f"no {probe}"
            if workload.ours and container[probe].get("httpGet", {}).get("path") != path:
                return f"{probe} does not ask {path}"
    return None


def grace(workload: Workload) -> str | None:
    if not (workload.serves and workload.ours):
        return None
    stops = [
        life.get("preStop", {}).get("sleep", {}).get("seconds", 0) for life in _each(workload, "lifecycle")
    ]
    needed = max(stops) + _drain(workload) + MARGIN_SECONDS
    given = workload.pod.get("terminationGracePeriodSeconds", 30)
    return None if given >= needed else f"grace of {given} s, {needed} s needed"


def _drain(workload: Workload) -> float:
    names = {volume.get("configMap", {}).get("name") for volume in workload.pod.get("volumes", [])}
    for item in workload.objects:
        if item["kind"] == "ConfigMap" and item["metadata"]["name"] in names:
            return drain_seconds(tomllib.loads(item["data"]["agent.toml"]))
    return drain_seconds({})


def disruption_budget(workload: Workload) -> str | None:
    if not workload.serves:
        return None
    for item in workload.objects:
        if item["kind"] == "PodDisruptionBudget":
            wanted = item["spec"]["selector"]["matchLabels"]
            if wanted and wanted.items() <= workload.labels.items():
                return None if item["spec"].get("maxUnavailable") == 1 else "budget is not maxUnavailable 1"
    return "no PodDisruptionBudget"


def no_account_token(workload: Workload) -> str | None:
    if workload.pod.get("automountServiceAccountToken") is not False:
        return "mounts a service account token"
    account = workload.pod.get("serviceAccountName", "default")
    return "uses the default account" if account == "default" else None


def no_service_links(workload: Workload) -> str | None:
    return None if workload.pod.get("enableServiceLinks") is False else "gets the variables of all services"


def no_secret_literal(workload: Workload) -> str | None:
    for container in workload.containers:
        for variable in container.get("env", []):
            if SECRET_NAME.search(variable["name"]) and "secretKeyRef" not in variable.get("valueFrom", {}):
                return f"{variable['name']} is not taken from a secret"
    return None


def bounded_scratch(workload: Workload) -> str | None:
    folders = [volume["emptyDir"] for volume in workload.pod.get("volumes", []) if "emptyDir" in volume]
    return None if all("sizeLimit" in folder for folder in folders) else "an emptyDir without sizeLimit"


def spread(workload: Workload) -> str | None:
    if workload.labels.get("app.kubernetes.io/component") != "agent":
        return None
    constraints = workload.pod.get("topologySpreadConstraints", [])
    selectors = [constraint["labelSelector"]["matchLabels"] for constraint in constraints]
    fine = bool(selectors) and all(
        wanted and wanted.items() <= workload.labels.items() for wanted in selectors
    )
    return None if fine else "its pods are not spread over nodes"


RULES: tuple[Rule, ...] = (
    non_root,
    seccomp,
    read_only_root,
    drops_all,
    no_escalation,
    exact_image,
    memory_limit,
    no_cpu_limit,
    probes,
    grace,
    disruption_budget,
    no_account_token,
    no_service_links,
    no_secret_literal,
    bounded_scratch,
    spread,
)
