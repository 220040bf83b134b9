"""The Kubernetes manifests: built by kustomize, checked against the API's schemas and against each other."""

from __future__ import annotations

import copy
import os
import shutil
import subprocess
from typing import Any

import kubernetes_validate
import pytest
import yaml

from app.api.application import create_app
from app.settings import Settings
from tests.conftest import ROOT

Manifests = dict[str, dict[str, Any]]
KUBECTL = shutil.which("kubectl")
SCHEMAS = kubernetes_validate.latest_version()

pytestmark = pytest.mark.skipif(KUBECTL is None and not os.environ.get("CI"), reason="no kubectl on this machine")


@pytest.fixture(scope="module", params=["staging", "production"])
def manifests(request: pytest.FixtureRequest) -> Manifests:
    """All manifests of an overlay by kind."""
    command = [str(KUBECTL), "kustomize", str(ROOT / "ops/stack/k8s/overlays" / request.param)]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return {manifest["kind"]: manifest for manifest in yaml.safe_load_all(text)}


def container(manifests: Manifests) -> dict[str, Any]:
    """Return the only container of the deployment."""
    (found,) = manifests["Deployment"]["spec"]["template"]["spec"]["containers"]
    return dict(found)


def test_every_manifest_of_kubernetes_own_is_valid(manifests: Manifests) -> None:
    own = [m for kind, m in manifests.items() if kind != "ServiceMonitor"]  # a custom resource: looked at below
    assert len(own) == 5
    for manifest in own:
        kubernetes_validate.validate(manifest, SCHEMAS, strict=True)


def test_a_misspelt_field_is_found(manifests: Manifests) -> None:
    wrong = copy.deepcopy(manifests["Deployment"])
    wrong["spec"]["template"]["spec"]["containers"][0]["readynessProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, SCHEMAS, strict=True)


def test_the_pod_meets_the_restricted_standard(manifests: Manifests) -> None:
    pod, own = manifests["Deployment"]["spec"]["template"]["spec"], container(manifests)["securityContext"]
    assert pod["securityContext"]["runAsNonRoot"] and pod["securityContext"]["runAsUser"] == 10001
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert own["allowPrivilegeEscalation"] is False and own["capabilities"] == {"drop": ["ALL"]}
    assert own["readOnlyRootFilesystem"] and not pod["automountServiceAccountToken"]
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
