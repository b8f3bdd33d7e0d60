"""The command line: ``python -m synthetic OUTPUT``."""

import sys

from synthetic.generate import main

if __name__ == "__main__":
    sys.exit(main())
