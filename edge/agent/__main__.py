"""``python -m edge.agent CONFIG``: the agent of one device."""

import sys

from edge.agent.main import main

sys.exit(main())
