"""Names of the messages between the master and its workers, beside Locust's own.

Their bodies are built and read in `worker_node` and `master_node`. In a single process Locust
hands a message straight to the listener, so both sides are the same code there.
"""

from __future__ import annotations

from typing import Final

HELLO: Final = "talkscope_hello"
"""Worker: it is warm and wants its setup. `host`, `pid`."""
SETUP: Final = "talkscope_setup"
"""Master: what to do (`Setup`) and `index`; again whenever the shares change."""
REPORT: Final = "talkscope_report"
"""Worker: `sequence` of its first entry, `entries`, `sessions`, `speaking`."""
ARRIVALS: Final = "talkscope_arrivals"
"""Master: `sent` and `instants` on its monotonic clock."""
LEAVE: Final = "talkscope_leave"
"""Master: stop all visits. Locust's own `quit` does not wait for what they still have to do."""
FINISHED: Final = "talkscope_finished"
"""Worker: nothing of it is left on the target. A report, with what `Worker.end` tells."""

REPORT_EVERY_S: Final = 1.0
LAST_WORDS_S: Final = 60.0
"""How long the master waits for its workers' last words beyond Locust's stop timeout; Locust
itself gives them as long."""
LOST_AFTER_S: Final = 10.0
"""A worker of which nothing was heard for so long is lost. Locust's own limit of three seconds
is exceeded by a worker that is merely late, and its sessions must then be left alone."""
