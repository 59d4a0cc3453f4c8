"""What notebooks and commands hold: ``Desk``, the clouds, decisions on versions."""

from pipelines.desk.desk import Desk as Desk
