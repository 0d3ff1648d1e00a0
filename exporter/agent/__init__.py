"""Talkscope's agent, which runs inside OpenTalking's process: what only the inside can see.

What comes in: OpenTalking's own calls, through hooks on a few of its methods. What goes out: a
record for each speech, each session created and now and then of the process, and in unified mode
every event, to the exporter's `POST /v1/marks` (docs/marks.md; docs/agent.md is the operator's
page). It must not change what OpenTalking does, make it wait or make it fail: each hook only notes
an instant, and a thread of its own does the rest.

Standard library, `exporter.stages` and what OpenTalking itself has; nothing else of the exporter
is imported here, for OpenTalking's environment lacks what that needs.
"""
