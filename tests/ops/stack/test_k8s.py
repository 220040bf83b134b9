"""The Kubernetes manifests: built by kustomize, checked against the API's schemas and against each other.

KubeRay's resource has no schema here; the pods of its templates do.
"""

from __future__ import annotations

import copy
import os
import re
import shutil
import subprocess
from typing import Any

import kubernetes_validate
import pytest
import yaml

from app.api.application import create_app
from app.settings import Settings
from stages.on_ray import cluster
from tests.conftest import ROOT

Manifests = dict[str, dict[str, Any]]
KUBECTL = shutil.which("kubectl")
FOLDER = ROOT / "ops/stack/k8s"
SCHEMAS = kubernetes_validate.latest_version()

pytestmark = pytest.mark.skipif(KUBECTL is None and not os.environ.get("CI"), reason="no kubectl on this machine")


def build(path: str) -> Manifests:
    """Return all manifests of a folder by kind, as kustomize makes them."""
    command = [str(KUBECTL), "kustomize", str(FOLDER / path)]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return {manifest["kind"]: manifest for manifest in yaml.safe_load_all(text)}


def restricted(pod: dict[str, Any]) -> bool:
    """Return whether the specification of a pod meets the restricted standard, without access to the API."""
    (own,) = (container["securityContext"] for container in pod["containers"])
    return bool(
        pod["securityContext"]["runAsNonRoot"]
        and pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        and own["allowPrivilegeEscalation"] is False
        and own["capabilities"] == {"drop": ["ALL"]}
        and not pod["automountServiceAccountToken"]
    )


@pytest.fixture(scope="module", params=["staging", "production"])
def manifests(request: pytest.FixtureRequest) -> Manifests:
    """The manifests of an overlay."""
    return build(f"overlays/{request.param}")


def container(manifests: Manifests) -> dict[str, Any]:
    """Return the only container of the deployment."""
    (found,) = manifests["Deployment"]["spec"]["template"]["spec"]["containers"]
    return dict(found)


def test_every_manifest_of_kubernetes_own_is_valid(manifests: Manifests) -> None:
    own = [m for kind, m in manifests.items() if kind != "ServiceMonitor"]  # a custom resource: looked at below
    assert len(own) == 5
    for manifest in own:
        kubernetes_validate.validate(manifest, SCHEMAS, strict=True)
    wrong = copy.deepcopy(manifests["Deployment"])
    wrong["spec"]["template"]["spec"]["containers"][0]["readynessProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, SCHEMAS, strict=True)


def test_the_pod_meets_the_restricted_standard(manifests: Manifests) -> None:
    pod = manifests["Deployment"]["spec"]["template"]["spec"]
    assert restricted(pod) and pod["securityContext"]["runAsUser"] == 10001
    assert container(manifests)["securityContext"]["readOnlyRootFilesystem"]
    assert all("emptyDir" in volume for volume in pod["volumes"])


def test_probes_are_answered_and_the_pod_can_drain(manifests: Manifests) -> None:
    routes = set(create_app(Settings()).openapi()["paths"])
    own = container(manifests)
    paths = {own[f"{kind}Probe"]["httpGet"]["path"] for kind in ("startup", "readiness", "liveness")}
    assert paths <= routes and own["livenessProbe"]["httpGet"]["path"] == "/livez"
    drain = float({e["name"]: e["value"] for e in own["env"]}["ONTIME_DRAIN_SECONDS"])
    assert manifests["Deployment"]["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] > drain + 2


def test_limits_are_those_of_compose(manifests: Manifests) -> None:
    api = yaml.safe_load((ROOT / "ops/stack/compose/api.yml").read_text())["services"]["api"]
    limits = container(manifests)["resources"]["limits"]
    assert (float(limits["cpu"]), limits["memory"].removesuffix("Mi")) == (api["cpus"], api["mem_limit"].rstrip("m"))


def test_names_lead_where_they_should(manifests: Manifests) -> None:
    labels = manifests["Deployment"]["spec"]["template"]["metadata"]["labels"]
    selectors = [manifests["Service"]["spec"]["selector"]]
    selectors += [manifests["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"]]
    selectors += [manifests["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"]]
    assert all(selector.items() <= labels.items() for selector in selectors)
    monitor, service = manifests["ServiceMonitor"]["spec"], manifests["Service"]
    assert monitor["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert monitor["endpoints"][0]["port"] == service["spec"]["ports"][0]["name"]
    assert manifests["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"]["name"] == "on-time"
    assert "latest" not in container(manifests)["image"] and ":model-v" in container(manifests)["image"]


def test_a_node_can_be_drained_without_a_gap(manifests: Manifests) -> None:
    least = manifests["HorizontalPodAutoscaler"]["spec"]["minReplicas"]
    kept = manifests["PodDisruptionBudget"]["spec"]["minAvailable"]
    rolling = manifests["Deployment"]["spec"]["strategy"]["rollingUpdate"]
    assert rolling["maxUnavailable"] == 0 and least > kept


@pytest.fixture(scope="module")
def ray() -> Manifests:
    """The manifests of a Ray cluster."""
    return build("ray")


@pytest.fixture
def pods(ray: Manifests) -> Manifests:
    """The pods that KubeRay makes of its templates, for head and workers."""
    spec = ray["RayCluster"]["spec"]
    templates = {"head": spec["headGroupSpec"]["template"]}
    templates |= {group["groupName"]: group["template"] for group in spec["workerGroupSpecs"]}
    return {
        name: {"apiVersion": "v1", "kind": "Pod"} | template | {"metadata": template["metadata"] | {"name": name}}
        for name, template in templates.items()
    }


def test_the_manifests_of_ray_are_valid(ray: Manifests, pods: Manifests) -> None:
    assert set(ray) == {"RayCluster", "PersistentVolumeClaim", "NetworkPolicy"} and set(pods) == {"head", "workers"}
    for manifest in [*pods.values(), ray["PersistentVolumeClaim"], ray["NetworkPolicy"]]:
        kubernetes_validate.validate(manifest, SCHEMAS, strict=True)
    assert all(restricted(pod["spec"]) for pod in pods.values())


def test_the_resource_of_kuberay_has_its_fields(ray: Manifests) -> None:
    spec = ray["RayCluster"]["spec"]
    assert ray["RayCluster"]["apiVersion"] == "ray.io/v1"
    assert set(spec) == {"rayVersion", "authOptions", "headGroupSpec", "workerGroupSpecs"}
    assert set(spec["headGroupSpec"]) == {"rayStartParams", "template"}
    fields = {"groupName", "replicas", "minReplicas", "maxReplicas", "rayStartParams", "template"}
    assert all(set(group) == fields for group in spec["workerGroupSpecs"])
    starts = [spec["headGroupSpec"], *spec["workerGroupSpecs"]]
    assert all(isinstance(value, str) for start in starts for value in start["rayStartParams"].values())
    locked = re.search(r"^ray(?:\[[^]]*\])?==(\S+)", (ROOT / "requirements-ray.txt").read_text(), re.MULTILINE)
    assert locked is not None and spec["rayVersion"] == locked[1]


def test_head_and_workers_have_the_same_files(ray: Manifests, pods: Manifests) -> None:
    claim = ray["PersistentVolumeClaim"]
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    for pod in pods.values():
        (own,) = pod["spec"]["containers"]
        assert {"name": "srv", "mountPath": "/srv"} in own["volumeMounts"] and own["workingDir"] == "/srv/on-time"
        assert pod["spec"]["volumes"][0]["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
        memory = int(pod["spec"]["volumes"][2]["emptyDir"]["sizeLimit"].removesuffix("Gi")) * 2**30
        assert memory > cluster.OBJECT_STORE_BYTES
        allowed = ray["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"]
        assert allowed.items() <= pod["metadata"]["labels"].items()
