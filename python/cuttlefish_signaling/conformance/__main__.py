"""`python -m cuttlefish_signaling.conformance`: the command line of the kit, without the server."""

import sys

from ._command import main

if __name__ == "__main__":
    sys.exit(main())
