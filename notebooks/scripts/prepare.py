"""What a team's own step may do before devices train: here it sets the bar for the new model."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

OUTPUT = Path("/opt/ml/processing/output")

parser = argparse.ArgumentParser()
parser.add_argument("--slack", type=float, default=0.05)
options = parser.parse_args()
# In a real pipeline: the accuracy of the model in use on the team's own test set.
in_use = 0.85
OUTPUT.mkdir(parents=True, exist_ok=True)
(OUTPUT / "bar.json").write_text(json.dumps({"accuracy": in_use - options.slack}))
print(f"the bar is {in_use - options.slack:.2f}")
