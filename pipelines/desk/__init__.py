"""What notebooks and commands work with.

- ``Desk``: runs, models and decisions from a notebook;
- ``clouds``: the local cloud or an AWS account, as the user chooses;
- ``wiring``: the AWS clients of notebooks and commands, made in one place;
- ``runs``: what MLflow and the logs tell of runs; ``decisions``: approving and rejecting versions.

``pipelines.cli`` imports from all of them; nothing here imports the command line.
"""

from pipelines.desk.desk import Desk as Desk
