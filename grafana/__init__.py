"""Dashboards, recording rules and alerts, written as Python from the catalogue.

What goes out: JSON and YAML files in the tree (`python -m grafana` writes them, `--check` says
whether they are what it would write). It must not know how a value is measured.
"""
