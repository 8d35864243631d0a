"""`python -m router.cli`: the command."""

import sys

from router.cli import main

sys.exit(main())
