"""Reads the deployment files as the platforms would: Dockerfile, compose interpolation, kustomize."""

import re
import tomllib
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
DATA = ("agents", "broker", "deploy", "fly", "k8s", "router", "docker-compose.yml")
UNSCOPED = {"Namespace"}

Document = dict[str, Any]


def data_files() -> Iterator[Path]:
    """Every file of the data folders, generated secrets left out."""
    for name in DATA:
        start = ROOT / name
        for path in [start] if start.is_file() else sorted(start.rglob("*")):
            if path.is_file() and (ROOT / "deploy" / "secrets") not in path.parents:
                yield path


def toml(path: Path) -> Document:
    return tomllib.loads(path.read_text(encoding="utf-8"))


def drain_seconds(agent: Document) -> float:
    """How long an agent of this file drains; 30 s is the configuration's default."""
    return float(agent.get("lifecycle", {}).get("drain_timeout_secs", 30))


def placeholders() -> set[str]:
    """Names that the shipped agent files take from the environment in place of a value."""
    files = sorted((ROOT / "agents").glob("*.toml"))
    return {name for path in files for name in re.findall(r"\$\{(\w+)", path.read_text(encoding="utf-8"))}


# Dockerfile


def instructions(path: Path) -> list[tuple[str, str]]:
    """Instruction and argument in order, continuation lines joined, comments dropped."""
    lines = [
        line for line in path.read_text(encoding="utf-8").splitlines() if not line.lstrip().startswith("#")
    ]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    return [
        (word.upper(), rest.strip())
        for word, _, rest in (line.partition(" ") for line in joined.splitlines() if line.strip())
    ]


# Compose


def interpolate(value: Any, environ: dict[str, str]) -> Any:
    """Compose's ``${NAME:-default}`` and ``$$`` in every string below ``value``."""
    match value:
        case dict():
            return {key: interpolate(item, environ) for key, item in value.items()}
        case list():
            return [interpolate(item, environ) for item in value]
        case str():
            return re.sub(
                r"\$\$|\$\{(\w+)(?::-([^}]*))?\}",
                lambda found: "$" if found[0] == "$$" else environ.get(found[1]) or found[2] or "",
                value,
            )
        case _:
            return value


def compose(**environ: str) -> Document:
    """docker-compose.yml with anchors merged and variables put in."""
    loaded = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
    document: Document = interpolate(loaded, environ)
    return document


def seconds(duration: str) -> int:
    """``90s``, ``5m``, ``1m30s`` as seconds."""
    units = {"h": 3600, "m": 60, "s": 1}
    return sum(int(count) * units[unit] for count, unit in re.findall(r"(\d+)([hms])", duration))


# Kubernetes


def render(folder: Path) -> list[Document]:
    """The objects of a kustomization, for the features these files use; ConfigMaps keep their plain names.

    Raises ``AssertionError`` for a feature it does not know, so that none is silently left out.
    """
    plan = yaml.safe_load((folder / "kustomization.yaml").read_text(encoding="utf-8"))
    unknown = set(plan) - {
        "apiVersion", "kind", "namespace", "resources", "configMapGenerator", "images", "labels", "patches",
    }  # fmt: skip
    assert not unknown, f"{folder}: the test renderer does not know {unknown}"
    objects: list[Document] = []
    for resource in plan.get("resources", []):
        path = (folder / resource).resolve()
        if path.is_dir():
            objects += render(path)
        else:
            objects += [item for item in yaml.safe_load_all(path.read_text(encoding="utf-8")) if item]
    objects += [_config_map(folder, wanted) for wanted in plan.get("configMapGenerator", [])]
    for patch in plan.get("patches", []):
        _patch(objects, patch)
    for item in objects:
        if "namespace" in plan and item["kind"] not in UNSCOPED:
            item["metadata"]["namespace"] = plan["namespace"]
        for label in plan.get("labels", []):
            _label(item, label["pairs"])
        for image in plan.get("images", []):
            _tag(item, image)
    return objects


def _config_map(folder: Path, wanted: Document) -> Document:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": wanted["name"]},
        "data": {name: (folder / name).read_text(encoding="utf-8") for name in wanted["files"]},
        **wanted.get("options", {}),
    }


def _patch(objects: list[Document], patch: Document) -> None:
    target = patch["target"]
    (found,) = [
        item
        for item in objects
        if item["kind"] == target["kind"] and item["metadata"]["name"] == target["name"]
    ]
    for step in yaml.safe_load(patch["patch"]):
        assert step["op"] == "replace"
        *way, last = step["path"].strip("/").split("/")
        place: Any = found
        for part in way:
            place = place[int(part)] if isinstance(place, list) else place[part]
        assert last in place, f"nothing to replace at {step['path']}"
        place[last] = step["value"]


def _label(item: Document, pairs: dict[str, str]) -> None:
    item["metadata"].setdefault("labels", {}).update(pairs)
    spec = item.get("spec", {})
    if item["kind"] in {"Deployment", "StatefulSet"}:
        spec["selector"]["matchLabels"].update(pairs)
        spec["template"]["metadata"]["labels"].update(pairs)
        for constraint in spec["template"]["spec"].get("topologySpreadConstraints", []):
            constraint["labelSelector"]["matchLabels"].update(pairs)
    elif item["kind"] == "PodDisruptionBudget":
        spec["selector"]["matchLabels"].update(pairs)


def _tag(item: Document, image: Document) -> None:
    for container in pod_spec(item).get("containers", []):
        if container["image"].split(":")[0] == image["name"]:
            container["image"] = f"{image['name']}:{image['newTag']}"


def pod_spec(item: Document) -> Document:
    """The pod's spec of a workload, empty for other kinds."""
    spec: Document = item.get("spec", {}).get("template", {}).get("spec", {})
    return spec


def without_hashes(objects: list[Document]) -> list[Document]:
    """Kubectl's objects with the hash suffix of generated ConfigMaps taken off, also where they are named."""
    objects = deepcopy(objects)
    plain = {
        item["metadata"]["name"]: re.sub(r"-[a-z0-9]{10}$", "", item["metadata"]["name"])
        for item in objects
        if item["kind"] == "ConfigMap"
    }
    for item in objects:
        if item["kind"] == "ConfigMap":
            item["metadata"]["name"] = plain[item["metadata"]["name"]]
        for volume in pod_spec(item).get("volumes", []):
            if "configMap" in volume:
                volume["configMap"]["name"] = plain[volume["configMap"]["name"]]
    return objects
