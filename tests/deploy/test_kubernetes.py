"""The Kubernetes manifests, built by kustomize and checked as far as that goes without a cluster.

`kubectl` builds them (skipped without one), and PyPI's `kubernetes-validate` has the schemas of
Kubernetes' own kinds. The operator's kinds are checked by the fields that we use.
"""

import json
import os
import re
import shutil
import subprocess

import kubernetes_validate
import pytest
import yaml

from exporter import config as exporter_config
from exporter.agent import running, settings
from grafana import alerts, boards
from tests.deploy.programs import LOCUST, unknown_options
from tests.processes import ROOT

MANIFESTS = ROOT / "deploy" / "kubernetes"
STAND_IN = "opentalking_stand_in_deployments.yaml"

needs_kubectl = pytest.mark.skipif(
    shutil.which("kubectl") is None, reason="kubectl, which builds the manifests, is not installed"
)

# Of monitoring.coreos.com/v1, the fields that we use; they were checked against the full
# definitions of Prometheus Operator 0.93.
RELABELING = {"targetLabel", "replacement", "action", "sourceLabels", "regex"}
ENDPOINT = {"port", "interval", "scrapeTimeout", "relabelings"}
RULE = {"alert", "record", "expr", "for", "keep_firing_for", "labels", "annotations"}


def build(folder):
    done = subprocess.run(
        ["kubectl", "kustomize", str(folder)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


def one(objects, kind, name):
    (found,) = (o for o in objects if (o["kind"], o["metadata"]["name"]) == (kind, name))
    return found


@pytest.fixture(scope="module")
def base():
    return build(MANIFESTS / "base")


@pytest.fixture(scope="module")
def load_test():
    return build(MANIFESTS / "overlays/load-test")


@pytest.fixture(scope="module")
def observed(tmp_path_factory):
    """Somebody's Deployments (stand-ins) with the components agent and sidecar."""
    folder = tmp_path_factory.mktemp("observed")
    shutil.copy(ROOT / "tests/deploy" / STAND_IN, folder)
    components = [os.path.relpath(MANIFESTS / "components" / c, folder) for c in NAMES]
    content = {"kind": "Kustomization", "resources": [STAND_IN], "components": components}
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(content))
    return build(folder)


NAMES = ("agent", "sidecar")


@pytest.fixture(scope="module")
def everything(base, load_test, observed):
    return [*base, *load_test, *observed]


def pods(objects):
    """Name and pod of everything that makes pods, but the parts that are not ours."""
    return [
        (o["metadata"]["name"], o["spec"]["template"]["spec"])
        for o in objects
        if o["kind"] in ("Deployment", "Job")
    ]


def ours(objects):
    return [
        (name, pod, container)
        for name, pod in pods(objects)
        for container in [*pod["containers"], *pod.get("initContainers", ())]
        if container["image"].startswith("talkscope-")
    ]


def environment(container):
    return {item["name"]: item.get("value") for item in container.get("env", ())}


@needs_kubectl
class TestBuilt:
    def test_every_folder_is_built_here(self):
        folders = {path.parent for path in MANIFESTS.rglob("kustomization.yaml")}
        built = {MANIFESTS / "base", MANIFESTS / "overlays/load-test"}
        assert folders == built | {MANIFESTS / "components" / name for name in NAMES}

    def test_kubernetes_own_kinds_fit_their_schemas(self, everything):
        for found in everything:
            if "monitoring.coreos.com" not in found["apiVersion"]:
                kubernetes_validate.validate(found, "1.33", strict=True)

    def test_our_containers_are_pinned_bounded_and_without_rights(self, everything):
        found = ours(everything)
        assert len(found) == 6
        for _, pod, container in found:
            assert re.fullmatch(r"talkscope-(exporter|loadgen):\d+\.\d+\.\d+", container["image"])
            assert {"cpu", "memory"} <= container["resources"]["requests"].keys()
            assert "memory" in container["resources"]["limits"]
            rights = {**pod.get("securityContext", {}), **container["securityContext"]}
            assert rights["runAsNonRoot"] is True
            assert rights["allowPrivilegeEscalation"] is False
            assert rights["readOnlyRootFilesystem"] is True
            assert rights["capabilities"] == {"drop": ["ALL"]}

    def test_what_is_mounted_is_a_volume_of_the_pod(self, everything):
        maps = {o["metadata"]["name"] for o in everything if o["kind"] == "ConfigMap"}
        for _, pod, container in ours(everything):
            volumes = {volume["name"]: volume for volume in pod["volumes"]}
            for mount in container["volumeMounts"]:
                volume = volumes[mount["name"]]
                assert volume.get("configMap", {"name": next(iter(maps))})["name"] in maps

    def test_the_exporter_s_variables_are_settings_of_its(self, base, observed):
        known = {s.variable for s in exporter_config.SETTINGS}
        exporters = [c for _, _, c in ours([*base, *observed]) if "ports" in c]
        assert len(exporters) == 2
        for container in exporters:
            told = {k: v for k, v in environment(container).items() if not k.startswith("OTEL_")}
            assert told.keys() <= known
            values = {k: v for k, v in told.items() if v is not None}
            assert exporter_config.parse([], values).target == "http://opentalking-api:8000"
            (port,) = container["ports"]
            assert port["containerPort"] == 9109
            assert container["livenessProbe"]["httpGet"] == {
                "path": "/healthz",
                "port": port["name"],
            }

    def test_only_one_exporter_at_a_time_watches_a_target(self, base, observed):
        for found in (
            one(base, "Deployment", "talkscope-exporter"),
            one(observed, "Deployment", "worker"),
        ):
            assert found["spec"]["strategy"] == {"type": "Recreate"}
            assert found["spec"].get("replicas", 1) == 1

    @pytest.mark.parametrize("name", ["worker", "api"])
    def test_the_agent_starts_opentalking_s_script(self, observed, name):
        pod = one(observed, "Deployment", name)["spec"]["template"]["spec"]
        (container,) = (c for c in pod["containers"] if c["name"] == "opentalking")
        assert container["command"] == ["python", "-m", "exporter.agent", f"opentalking-{name}"]
        assert container["command"][-1] in running.SCRIPTS
        told = environment(container)
        assert told["PYTHONPATH"] == "/opt/talkscope"
        assert settings.TOKEN in told
        exporter = "http://127.0.0.1:9109" if name == "worker" else "http://talkscope-exporter:9109"
        assert settings.from_environment({"TALKSCOPE_EXPORTER": exporter}).exporter == exporter
        assert told["TALKSCOPE_EXPORTER"] == exporter
        (copier,) = pod["initContainers"]
        (target,) = (m for m in copier["volumeMounts"])
        assert copier["command"] == ["cp", "-r", "/opt/talkscope/.", target["mountPath"] + "/"]
        mounted = {m["name"]: m["mountPath"] for m in container["volumeMounts"]}
        assert mounted[target["name"]] == told["PYTHONPATH"]

    def test_nothing_of_somebody_s_deployment_is_lost(self, observed):
        before = list(yaml.safe_load_all((ROOT / "tests/deploy" / STAND_IN).read_text()))
        worker = one(observed, "Deployment", "worker")["spec"]["template"]["spec"]
        (container,) = (c for c in worker["containers"] if c["name"] == "opentalking")
        assert environment(container)["OPENTALKING_REDIS_URL"] == "redis://redis:6379/0"
        assert {"name": "models", "mountPath": "/models"} in container["volumeMounts"]
        assert {"name": "models", "emptyDir": {}} in worker["volumes"]
        assert one(observed, "Deployment", "web")["spec"] == before[2]["spec"]

    def test_the_load_test_s_options_are_known(self, load_test):
        for name, _, container in ours(load_test):
            assert container["command"] == ["locust", "-f", "/opt/venv/loadgen/locustfile.py"]
            assert not unknown_options(LOCUST, container["args"]), name

    def test_the_load_test_waits_for_as_many_workers_as_there_are(self, load_test):
        workers = one(load_test, "Job", "talkscope-load-worker")["spec"]
        ((_, _, master),) = ours([one(load_test, "Job", "talkscope-load")])
        assert workers["parallelism"] == workers["completions"]
        assert f"--expect-workers={workers['parallelism']}" in master["args"]
        ((_, _, worker),) = ours([one(load_test, "Job", "talkscope-load-worker")])
        assert "--master-host=talkscope-load" in worker["args"]
        assert one(load_test, "Service", "talkscope-load")["spec"]["ports"][0]["port"] == 5557

    def test_monitors_select_pods_and_services_that_exist(self, base, load_test, observed):
        service = one(base, "Service", "talkscope-exporter")
        monitor = one(base, "ServiceMonitor", "talkscope-exporter")["spec"]
        assert monitor["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
        assert monitor["endpoints"][0]["port"] == service["spec"]["ports"][0]["name"]
        for objects, name, kind, owner in (
            (load_test, "talkscope-load", "Job", "talkscope-load-worker"),
            (observed, "talkscope-sidecar", "Deployment", "worker"),
        ):
            monitor = one(objects, "PodMonitor", name)["spec"]
            template = one(objects, kind, owner)["spec"]["template"]
            labels = template["metadata"]["labels"]
            assert monitor["selector"]["matchLabels"].items() <= labels.items()
            ports = {p["name"] for c in template["spec"]["containers"] for p in c.get("ports", ())}
            assert monitor["podMetricsEndpoints"][0]["port"] in ports

    def test_jobs_have_the_names_that_alerts_ask_for(self, everything):
        given = {
            relabeling["replacement"]
            for o in everything
            for kind in ("endpoints", "podMetricsEndpoints")
            for endpoint in o.get("spec", {}).get(kind, ())
            for relabeling in endpoint["relabelings"]
        }
        asked = set(re.findall(r'job="([\w-]+)"', " ".join(a.expr for a in alerts.ALERTS)))
        # The probe is not among the manifests: it runs beside viewers, not in the cluster.
        assert asked - given <= {"talkscope-probe"}
        assert "talkscope" in asked & given

    def test_the_operator_s_kinds_have_only_fields_that_it_knows(self, everything):
        kinds = set()
        for found in everything:
            if found["apiVersion"] != "monitoring.coreos.com/v1":
                continue
            kinds.add(found["kind"])
            spec = found["spec"]
            if found["kind"] == "PrometheusRule":
                for group in spec["groups"]:
                    assert group.keys() <= {"name", "interval", "rules"}
                    assert all(rule.keys() <= RULE for rule in group["rules"])
                continue
            endpoints = "endpoints" if found["kind"] == "ServiceMonitor" else "podMetricsEndpoints"
            assert spec.keys() == {"selector", endpoints}
            for endpoint in spec[endpoints]:
                assert endpoint.keys() <= ENDPOINT
                assert all(
                    relabeling.keys() <= RELABELING for relabeling in endpoint["relabelings"]
                )
        assert kinds == {"ServiceMonitor", "PodMonitor", "PrometheusRule"}

    def test_every_dashboard_is_a_config_map_that_grafana_finds(self, base):
        for uid, text in boards.rendered():
            found = one(base, "ConfigMap", uid)
            assert found["metadata"]["labels"]["grafana_dashboard"] == "1"
            assert json.loads(found["data"][f"{uid}.json"]) == json.loads(text)
            assert len(json.dumps(found)) < 2**20


def test_the_operator_s_rules_are_prometheus_own():
    folder = ROOT / "deploy/prometheus/rules"
    files = [
        yaml.safe_load((folder / name).read_text()) for name in ("recordings.yml", "alerts.yml")
    ]
    rule = yaml.safe_load((MANIFESTS / "base/prometheusrule.yaml").read_text())
    assert rule["spec"]["groups"] == [group for file in files for group in file["groups"]]
