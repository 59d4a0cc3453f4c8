"""Names in S3 and DynamoDB: a run's id, its object keys, the partition key of its replies.

::

    runs/RUN/         run.json, cohorts.json, champion.json, rounds/, model/
    transient/RUN/    arrays/, content/, commands/, updates/, checkpoints/: deleted after a month
    apps/DIGEST.zip   the bundle of a Flower app

Devices know none of these keys: they get a presigned URL for each object.
"""

from __future__ import annotations

from edge.protocol.names import check_digest, check_kind, check_name


def run_id(token: str) -> str:
    """The id of the run that a callback token started."""
    return f"run-{token}"


def run_prefix(run: str) -> str:
    """Prefix of everything that is kept of a run."""
    return f"runs/{check_name('run', run)}/"


def spec_key(run: str) -> str:
    """The run's specification."""
    return f"{run_prefix(run)}run.json"


def cohorts_key(run: str) -> str:
    """The run's cohorts."""
    return f"{run_prefix(run)}cohorts.json"


def champion_key(run: str) -> str:
    """The model in use by the fleet when the run began; ``null`` if it was not of this app."""
    return f"{run_prefix(run)}champion.json"


def rounds_prefix(run: str) -> str:
    """Prefix of the records of all finished rounds, sorted by round."""
    return f"{run_prefix(run)}rounds/"


def round_key(run: str, server_round: int) -> str:
    """The record of one finished round."""
    return f"{rounds_prefix(run)}{server_round:05d}.json"


def model_key(run: str, name: str) -> str:
    """One file of the final model."""
    return f"{run_prefix(run)}model/{name}"


def transient_prefix(run: str) -> str:
    """Prefix of what a run needs only while it lasts. The bucket's lifecycle rule deletes objects
    below ``transient/`` after a month.
    """
    return f"transient/{check_name('run', run)}/"


def arrays_key(run: str, digest: str) -> str:
    """Global weights: one object for each digest, shared by all devices of the run."""
    return f"{transient_prefix(run)}arrays/{check_digest(digest)}.safetensors"


def content_key(run: str, digest: str) -> str:
    """A record skeleton too large for a command (claim check)."""
    return f"{transient_prefix(run)}content/{check_digest(digest)}.json"


def command_key(run: str, digest: str) -> str:
    """A command too large for its transport (claim check)."""
    return f"{transient_prefix(run)}commands/{check_digest(digest)}.json"


def update_key(run: str, phase: str, device: str) -> str:
    """One device's update in one phase. ``phase`` comes from :func:`phase_id`."""
    return f"{transient_prefix(run)}updates/{phase}/{check_name('device', device)}.safetensors"


def checkpoint_key(run: str, name: str) -> str:
    """One checkpoint of the server."""
    return f"{transient_prefix(run)}checkpoints/{name}.safetensors"


def app_key(digest: str) -> str:
    """The bundle of a Flower app."""
    return f"apps/{check_digest(digest)}.zip"


def phase_id(server_round: int, kind: str, sequence: int, content: str) -> str:
    """A sortable name for a phase, such as ``00003-train-0007-0a1b2c3d``.

    ``sequence`` counts the phases of the round, ``content`` is the digest of what the devices get.
    So a server that resumes a run gives a phase its old name exactly when it asks the same again,
    and the replies that are there already count.
    """
    return f"{server_round:05d}-{check_kind(kind)}-{sequence:04d}-{check_digest(content)[:8]}"


def reply_key(run: str, phase: str, cohort: str) -> str:
    """Partition key in the ``replies`` table: the replies of one cohort in one phase."""
    return f"{run}#{phase}#{cohort}"
