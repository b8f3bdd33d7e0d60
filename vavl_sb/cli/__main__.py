"""`python -m vavl_sb.cli`: the command `vavl`."""

import sys

from vavl_sb.cli import main

sys.exit(main())
