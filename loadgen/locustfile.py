"""The load test for plain Locust: `locust -f loadgen/locustfile.py --host URL`.

Locust patches the whole standard library before it reads this file, and then decoding and name
resolution hang. So the process starts itself once more, patched selectively, with the same
arguments; see `loadgen.load.patching`.
"""

import sys
from pathlib import Path

# The modules beside this file are the ones it was written with, whatever else is installed.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from loadgen.load import patching

if not patching.is_fit():
    patching.start_again()

from loadgen.load.install import install
from loadgen.load.users import Viewer

__all__ = ["Viewer"]

install()
