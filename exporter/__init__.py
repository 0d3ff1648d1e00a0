"""The Talkscope sidecar: sees a deployment, assembles turns, publishes metrics, spans and bundles.

This module uses the standard library only, like `exporter.stages`, so that code running
inside OpenTalking's own process can import both.
"""

__version__ = "0.1.0"
