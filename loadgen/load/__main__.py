"""`python -m loadgen.load`: Locust's command line in a process that is patched as it must be.

Arguments are Locust's and those of `settings`; without `-f` the load test of this package runs.
"""

from __future__ import annotations

import sys
from pathlib import Path

from loadgen.load import patching

if __name__ == "__main__":
    patching.patch()

    from locust.main import main

    if not any(a in {"-f", "--locustfile"} or a.startswith("--locustfile=") for a in sys.argv):
        sys.argv[1:1] = ["-f", str(Path(__file__).resolve().parents[1] / "locustfile.py")]
    main()
