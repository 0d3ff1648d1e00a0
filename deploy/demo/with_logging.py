"""Runs one of OpenTalking's entry points after switching its log on.

What comes in: the name of a module that has a `main()`, and that main's own arguments. What goes
out: that main, with INFO lines on stderr. `opentalking-api` and `opentalking-worker` never
configure logging, so the lines with the pipeline's timings are dropped there;
`opentalking-unified` does configure it, in this same format. It must not know what the module does.

Runs inside OpenTalking's environment.
"""

import importlib
import logging
import sys


def main() -> None:
    """Run `main()` of the module named on the command line."""
    if len(sys.argv) < 2:
        sys.exit(f"usage: {sys.argv[0]} MODULE [ARGUMENT …]")
    logging.basicConfig(level=logging.INFO)
    sys.exit(importlib.import_module(sys.argv.pop(1)).main())


if __name__ == "__main__":
    main()
