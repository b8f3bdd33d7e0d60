"""Runs the command `vavl` as `python -m vavl_sb.cli`."""

import sys

from vavl_sb.cli import main

sys.exit(main())
