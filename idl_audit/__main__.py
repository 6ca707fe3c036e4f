"""`python -m idl_audit` and the console script `idl-audit`."""

from __future__ import annotations

import atexit
import gc
import sys

from idl_audit.values.threads import one_unless_said


def main() -> None:
    """Run the command line."""
    atexit.register(gc.freeze)  # Python would search all of torch for garbage once more, for most of a second
    gc.disable()  # a fifth of what a start costs is a search for garbage among what is loaded; `cli.loading` goes on
    one_unless_said()
    try:
        from idl_audit.cli.app import app

        app()
    except KeyboardInterrupt:  # before or after a command: commands handle it themselves
        print("error: interrupted", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
