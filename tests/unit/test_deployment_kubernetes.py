"""The Kubernetes files: schema of every version, our rules, and the names people rely on."""

import copy
import re
import shutil
import subprocess
import tomllib
from collections.abc import Callable
from typing import Any

import kubernetes_validate  # type: ignore[import-untyped]  # ships no types
import pytest
import yaml
from kubernetes_validate.utils import all_versions  # type: ignore[import-untyped]

from agent2389.config.environment import VARIABLES
from tests.support import kubernetes_policy as policy
from tests.support.deployment import ROOT, Document, placeholders, render, without_hashes
from tests.support.kubernetes_policy import RULES, Rule, Workload, probes, workloads

K8S = ROOT / "k8s"
POOLS = {"research": "researcher", "writing": "writer"}
VERSIONS = [version for version in all_versions() if int(version.split(".")[1]) >= 29]


@pytest.fixture(scope="module")
def mesh() -> list[Document]:
    return render(K8S)


def _named(objects: list[Document], kind: str, name: str) -> Document:
    (found,) = [o for o in objects if o["kind"] == kind and o["metadata"]["name"] == name]
    return found


def test_the_bundled_schemas_reach_from_1_29_to_1_37() -> None:
    assert {f"1.{minor}.0" for minor in range(29, 38)} <= set(VERSIONS)


@pytest.mark.parametrize("version", VERSIONS)
def test_every_object_is_valid(mesh: list[Document], version: str) -> None:
    for item in mesh:
        kubernetes_validate.validate(item, version, strict=True)
    assert len(mesh) > 20


def test_the_schema_check_sees_a_misspelt_key(mesh: list[Document]) -> None:
    broken = copy.deepcopy(_named(mesh, "Deployment", "researcher"))
    broken["spec"]["template"]["spec"]["containers"][0]["resorces"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(broken, VERSIONS[-1], strict=True)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_workloads_keep_the_rule(mesh: list[Document], rule: Rule) -> None:
    found = {workload.name: rule(workload) for workload in workloads(mesh)}
    assert set(found) == {
        "Deployment/agent2389-ops",
        "Deployment/researcher",
        "Deployment/writer",
        "StatefulSet/mqtt-broker",
        "Job/migrate",
    }
    assert not {name: finding for name, finding in found.items() if finding}


def _pod(change: Callable[[Any], object]) -> Callable[[Document], object]:
    return lambda item: change(item["spec"]["template"]["spec"])


def _container(change: Callable[[Any], object]) -> Callable[[Document], object]:
    return _pod(lambda pod: change(pod["containers"][0]))


BREAKS: list[tuple[Rule, Callable[[Document], object]]] = [
    (policy.non_root, _pod(lambda pod: pod["securityContext"].update(runAsUser=0))),
    (policy.seccomp, _pod(lambda pod: pod["securityContext"].pop("seccompProfile"))),
    (policy.read_only_root, _container(lambda c: c["securityContext"].pop("readOnlyRootFilesystem"))),
    (policy.drops_all, _container(lambda c: c["securityContext"]["capabilities"].update(add=["NET_RAW"]))),
    (policy.no_escalation, _container(lambda c: c["securityContext"].pop("allowPrivilegeEscalation"))),
    (policy.exact_image, _container(lambda c: c.update(image="agent2389:latest"))),
    (policy.exact_image, _container(lambda c: c.update(image="registry:5000/agent2389"))),
    (policy.memory_limit, _container(lambda c: c["resources"]["limits"].pop("memory"))),
    (policy.no_cpu_limit, _container(lambda c: c["resources"]["limits"].update(cpu="1"))),
    (policy.probes, _container(lambda c: c["livenessProbe"]["httpGet"].update(path="/health"))),
    (policy.probes, _container(lambda c: c.pop("startupProbe"))),
    (policy.grace, _pod(lambda pod: pod.update(terminationGracePeriodSeconds=59))),
    (policy.grace, _container(lambda c: c["lifecycle"]["preStop"]["sleep"].update(seconds=61))),
    (
        policy.disruption_budget,
        lambda item: item["spec"]["template"]["metadata"]["labels"].update(app="other"),
    ),
    (policy.no_account_token, _pod(lambda pod: pod.pop("automountServiceAccountToken"))),
    (policy.no_service_links, _pod(lambda pod: pod.pop("enableServiceLinks"))),
    (
        policy.no_secret_literal,
        _container(lambda c: c["env"].append({"name": "OPENAI_API_KEY", "value": "typed-in"})),
    ),
    (policy.bounded_scratch, _pod(lambda pod: pod["volumes"].append({"name": "more", "emptyDir": {}}))),
    (policy.spread, _pod(lambda pod: pod.pop("topologySpreadConstraints"))),
]


@pytest.mark.parametrize(("rule", "breaks"), BREAKS, ids=lambda value: getattr(value, "__name__", ""))
def test_a_broken_workload_is_found(
    mesh: list[Document], rule: Rule, breaks: Callable[[Document], object]
) -> None:
    item = copy.deepcopy(_named(mesh, "Deployment", "researcher"))
    assert rule(Workload(item, mesh)) is None
    breaks(item)
    assert rule(Workload(item, mesh))


def test_every_rule_is_shown_to_fail() -> None:
    assert {rule for rule, _ in BREAKS} == set(RULES)


def test_a_longer_drain_needs_a_longer_grace(mesh: list[Document]) -> None:
    objects = copy.deepcopy(mesh)
    _named(objects, "ConfigMap", "researcher-config")["data"]["agent.toml"] = (
        "[lifecycle]\ndrain_timeout_secs = 61\n"
    )
    finding = policy.grace(Workload(_named(objects, "Deployment", "researcher"), objects))
    assert finding == "grace of 90 s, 91.0 s needed"


def test_the_broker_is_alone_and_checked(mesh: list[Document]) -> None:
    broker = Workload(_named(mesh, "StatefulSet", "mqtt-broker"), mesh)
    assert broker.item["spec"]["replicas"] == 1
    assert not broker.ours
    assert probes(broker) is None
    assert all(
        "subPath" in mount for mount in broker.containers[0]["volumeMounts"] if mount["name"] != "data"
    )


@pytest.mark.parametrize(("pool", "agent"), POOLS.items())
def test_a_pool_keeps_the_names_people_use(mesh: list[Document], pool: str, agent: str) -> None:
    deployment = Workload(_named(mesh, "Deployment", agent), mesh)
    file = tomllib.loads(_named(mesh, "ConfigMap", f"{agent}-config")["data"]["agent.toml"])
    assert deployment.item["metadata"]["namespace"] == "agents"
    assert deployment.labels["app"] == agent == file["agent"]["id"]
    assert pool in file["agent"]["capabilities"]
    container = deployment.containers[0]
    assert {"name": "CONFIG_PATH", "value": "/app/config/agent.toml"} in container["env"]
    assert {"name": "config", "mountPath": "/app/config", "readOnly": True} in container["volumeMounts"]
    references = [v["valueFrom"]["secretKeyRef"] for v in container["env"] if "valueFrom" in v]
    optional = {(r["name"], r["key"]) for r in references if r.get("optional")}
    assert {("llm-secrets", "openai-api-key"), ("tool-secrets", "serper-api-key")} <= optional
    assert {r["name"] for r in references if not r.get("optional")} == {
        "mqtt-secrets",
        "ledger-secrets",
        "mesh-secrets",
    }


@pytest.mark.parametrize(("pool", "agent"), POOLS.items())
def test_a_pool_runs_the_shipped_agent(pool: str, agent: str) -> None:
    shipped, copied = ROOT / "agents" / f"{agent}.toml", K8S / "pools" / pool / "agent.toml"
    assert copied.read_text(encoding="utf-8") == shipped.read_text(encoding="utf-8"), (
        f"run: cp {shipped.relative_to(ROOT)} {copied.relative_to(ROOT)}"
    )
    text = copied.read_text(encoding="utf-8")
    beside = re.findall(r'^\s*(?:prompt_file|policy|profiles)\s*=\s*"([^"]+)"', text, re.MULTILINE)
    assert not beside, f"{beside} would be missing beside the mounted file"


def test_config_maps_are_immutable_and_no_secret_is_shipped(mesh: list[Document]) -> None:
    maps = [item for item in mesh if item["kind"] == "ConfigMap"]
    assert len(maps) == 3
    assert all(item["immutable"] for item in maps)
    assert not [item for item in mesh if item["kind"] == "Secret"]


def test_accounts_get_no_token(mesh: list[Document]) -> None:
    accounts = {o["metadata"]["name"]: o for o in mesh if o["kind"] == "ServiceAccount"}
    assert all(account["automountServiceAccountToken"] is False for account in accounts.values())
    assert {workload.pod["serviceAccountName"] for workload in workloads(mesh)} == set(accounts)


def test_network_is_closed_by_default(mesh: list[Document]) -> None:
    closed = _named(mesh, "NetworkPolicy", "deny-by-default")["spec"]
    assert closed == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    agent = _named(mesh, "NetworkPolicy", "agent")["spec"]
    world = [to["ipBlock"] for rule in agent["egress"] for to in rule["to"] if "ipBlock" in to]
    assert {"10.0.0.0/8", "169.254.0.0/16"} <= set(world[0]["except"])


def test_our_containers_get_only_variables_that_exist(mesh: list[Document]) -> None:
    known = {variable.name for variable in VARIABLES} | placeholders()
    for workload in workloads(mesh):
        if workload.ours:
            given = {variable["name"] for variable in workload.containers[0]["env"]}
            assert given <= known
            if workload.labels["app.kubernetes.io/component"] == "agent":
                assert placeholders() <= given


def test_references_lead_somewhere(mesh: list[Document]) -> None:
    maps = {item["metadata"]["name"] for item in mesh if item["kind"] == "ConfigMap"}
    for workload in workloads(mesh):
        named = {v["name"] for v in workload.pod["volumes"]}
        named |= {c["metadata"]["name"] for c in workload.item["spec"].get("volumeClaimTemplates", [])}
        assert {m["name"] for c in workload.containers for m in c["volumeMounts"]} == named
        assert {v["configMap"]["name"] for v in workload.pod["volumes"] if "configMap" in v} <= maps
    for service in (item for item in mesh if item["kind"] == "Service"):
        wanted = service["spec"]["selector"].items()
        assert [workload for workload in workloads(mesh) if wanted <= workload.labels.items()]


@pytest.mark.skipif(not shutil.which("kubectl"), reason="kubectl is not installed: own renderer only")
@pytest.mark.parametrize("folder", ["", "base", "pools/research", "pools/writing"])
def test_kubectl_renders_the_same(folder: str) -> None:
    command = ["kubectl", "kustomize", str(K8S / folder)]
    output = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout
    theirs = list(yaml.safe_load_all(output))
    maps = [item["metadata"]["name"] for item in theirs if item["kind"] == "ConfigMap"]
    assert maps
    assert all(re.search(r"-[a-z0-9]{10}$", name) for name in maps)

    def order(item: Document) -> tuple[str, str]:
        return item["kind"], item["metadata"]["name"]

    assert sorted(without_hashes(theirs), key=order) == sorted(render(K8S / folder), key=order)
