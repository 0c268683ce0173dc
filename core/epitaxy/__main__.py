"""`python -m epitaxy` is the command `epitaxy`."""

import sys

from epitaxy.cli import main

if __name__ == "__main__":
    sys.exit(main())
