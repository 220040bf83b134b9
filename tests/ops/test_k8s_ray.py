"""The manifests of a Ray cluster: KubeRay's resource has no schema here, its pods and all other manifests do."""

from __future__ import annotations

import copy
import re
import subprocess
from typing import Any

import kubernetes_validate
import pytest
import yaml

from stages import cluster
from tests.conftest import ROOT
from tests.ops.test_k8s import KUBECTL, SCHEMAS

FOLDER = ROOT / "ops/stack/k8s/ray"


@pytest.fixture(scope="module", name="manifests")
def ray_manifests() -> dict[str, dict[str, Any]]:
    """All manifests by kind, as kustomize makes them where kubectl is installed."""
    if KUBECTL is not None:
        done = subprocess.run([KUBECTL, "kustomize", str(FOLDER)], capture_output=True, text=True, check=True)
        found = list(yaml.safe_load_all(done.stdout))
    else:
        names = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())["resources"]
        found = [yaml.safe_load((FOLDER / name).read_text()) for name in names]
    return {manifest["kind"]: manifest for manifest in found}


@pytest.fixture(name="pods")
def pod_manifests(manifests: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The pods that KubeRay makes of its templates, for head and workers."""
    spec = manifests["RayCluster"]["spec"]
    templates = {"head": spec["headGroupSpec"]["template"]}
    templates |= {group["groupName"]: group["template"] for group in spec["workerGroupSpecs"]}
    return {
        name: {"apiVersion": "v1", "kind": "Pod"} | template | {"metadata": template["metadata"] | {"name": name}}
        for name, template in templates.items()
    }


def test_pods_and_own_manifests_are_valid(
    manifests: dict[str, dict[str, Any]], pods: dict[str, dict[str, Any]]
) -> None:
    assert set(manifests) == {"RayCluster", "PersistentVolumeClaim", "NetworkPolicy"} and set(pods) == {
        "head",
        "workers",
    }
    for manifest in [*pods.values(), manifests["PersistentVolumeClaim"], manifests["NetworkPolicy"]]:
        kubernetes_validate.validate(manifest, SCHEMAS, strict=True)


def test_a_misspelt_field_of_a_pod_is_found(pods: dict[str, dict[str, Any]]) -> None:
    wrong = copy.deepcopy(pods["workers"])
    wrong["spec"]["containers"][0]["volumeMount"] = []
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, SCHEMAS, strict=True)


def test_the_resource_of_kuberay_has_its_fields(manifests: dict[str, dict[str, Any]]) -> None:
    ray = manifests["RayCluster"]
    assert ray["apiVersion"] == "ray.io/v1"
    assert set(ray["spec"]) == {"rayVersion", "authOptions", "headGroupSpec", "workerGroupSpecs"}
    assert set(ray["spec"]["headGroupSpec"]) == {"rayStartParams", "template"}
    fields = {"groupName", "replicas", "minReplicas", "maxReplicas", "rayStartParams", "template"}
    assert all(set(group) == fields for group in ray["spec"]["workerGroupSpecs"])
    starts = [ray["spec"]["headGroupSpec"], *ray["spec"]["workerGroupSpecs"]]
    assert all(isinstance(value, str) for start in starts for value in start["rayStartParams"].values())
    locked = re.search(r"^ray(?:\[[^]]*\])?==(\S+)", (ROOT / "requirements-ray.txt").read_text(), re.MULTILINE)
    assert locked is not None and ray["spec"]["rayVersion"] == locked[1]


def test_head_and_workers_have_the_same_files(
    manifests: dict[str, dict[str, Any]], pods: dict[str, dict[str, Any]]
) -> None:
    claim = manifests["PersistentVolumeClaim"]
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    for pod in pods.values():
        (own,) = pod["spec"]["containers"]
        assert {"name": "srv", "mountPath": "/srv"} in own["volumeMounts"] and own["workingDir"] == "/srv/on-time"
        assert pod["spec"]["volumes"][0]["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
        assert (
            int(pod["spec"]["volumes"][2]["emptyDir"]["sizeLimit"].removesuffix("Gi")) * 2**30
            > cluster.OBJECT_STORE_BYTES
        )
        allowed = manifests["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"]
        assert allowed.items() <= pod["metadata"]["labels"].items()


def test_the_pods_meet_the_restricted_standard(pods: dict[str, dict[str, Any]]) -> None:
    for pod in pods.values():
        own = pod["spec"]["containers"][0]["securityContext"]
        assert pod["spec"]["securityContext"]["runAsNonRoot"] and not pod["spec"]["automountServiceAccountToken"]
        assert pod["spec"]["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert own["allowPrivilegeEscalation"] is False and own["capabilities"] == {"drop": ["ALL"]}
