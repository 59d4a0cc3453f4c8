"""``python -m pipelines.cli``: the command line."""

import sys

from pipelines.cli.main import main

sys.exit(main())
