"""The dashboards as pictures, for docs/screenshots/: `make screenshots`.

No Grafana is needed: `page/` draws the panels with Grafana's own components from npm.
"""
