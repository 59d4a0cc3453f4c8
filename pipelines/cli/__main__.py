"""``python -m pipelines.cli``: the command line."""

import sys

from pipelines.cli.entry import main

sys.exit(main())
