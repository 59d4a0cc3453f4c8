"""``python -m fl_runtime.server``: the server task."""

import sys

from fl_runtime.server.main import main

sys.exit(main())
