"""``connect``: a desk on the local cloud or on AWS."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipelines.desk.clouds import Choice
    from pipelines.desk.notebook.desk import CloudDesk


def connect(cloud: Choice | None = None, *, home: str | Path = "") -> CloudDesk:
    """A desk on a cloud: what one runs, looks at and decides there.

    The local cloud is started if it does not run. It and its devices belong to a process of their
    own: they outlive this one, and end once nobody has used them for half an hour
    (``MLEDGEOPS_IDLE_SECONDS``). Nothing here changes this process's environment.

    Args:
        cloud: ``"local"``, or ``"aws"`` for the deployment in the account of your credentials;
            None: what ``MLEDGEOPS_CLOUD`` says, else ``"local"``.
        home: The local cloud's folder (default: ``MLEDGEOPS_HOME``, else ``.mledgeops``).

    Raises:
        UsageError: There is no such cloud; or AWS has no deployment, credentials or region.
        LocalCloudError: The local cloud cannot start.

    Examples:
        >>> connect("moon")
        Traceback (most recent call last):
        pipelines.errors.UsageError: There is no cloud 'moon': give "local" or "aws".

    """
    # Importing these takes a second, which `from pipelines import connect` need not.
    from pipelines.desk.access import AwsDoor, LocalDoor
    from pipelines.desk.clouds import chosen
    from pipelines.desk.notebook.desk import CloudDesk
    from pipelines.errors import UsageError

    if cloud not in (None, "local", "aws"):
        raise UsageError(f'There is no cloud {cloud!r}: give "local" or "aws".')
    # A notebook shows what libraries log.
    logging.getLogger("botocore").setLevel(logging.WARNING)
    if chosen(cloud or "") == "aws":
        if home:
            raise UsageError("home is the folder of a local cloud: leave it out on AWS.")
        return CloudDesk(AwsDoor.of_environment())
    from pipelines.local.home import Home

    door = LocalDoor(Home(Path(home).resolve()) if home else Home.default())
    door.open()
    return CloudDesk(door)
