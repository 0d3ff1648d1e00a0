"""Rules and dashboards as Kubernetes takes them.

What comes in: rule groups as Prometheus' rule files have them, and the dashboards' names. What
goes out: a PrometheusRule of the Prometheus Operator (monitoring.coreos.com/v1), and a
kustomization that makes a ConfigMap of each dashboard. It must not know what a rule or a dashboard
says.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

DASHBOARD_LABEL: Final = "grafana_dashboard"
"""By which the sidecar of Grafana's Helm chart finds ConfigMaps that hold dashboards."""

FOLDER_ANNOTATION: Final = "grafana_folder"


def prometheus_rule(groups: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The groups as one object of the operator."""
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "talkscope"},
        "spec": {"groups": list(groups)},
    }


def dashboards(uids: Iterable[str]) -> dict[str, Any]:
    """A kustomization beside the JSON files. One ConfigMap each: one object holds 1 MiB at most."""
    return {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "configMapGenerator": [{"name": uid, "files": [f"{uid}.json"]} for uid in uids],
        "generatorOptions": {
            # Grafana reads them by label; a new name at every change would leave the old ones.
            "disableNameSuffixHash": True,
            "labels": {DASHBOARD_LABEL: "1"},
            "annotations": {FOLDER_ANNOTATION: "Talkscope"},
        },
    }
