"""Where the parts of a run are kept: the run's id, its S3 object keys, the key of its replies.

::

    runs/RUN/            kept: run.json, cohorts.json, champion.json, rounds/, model/
    transient/RUN/       deleted by the bucket's lifecycle rule: arrays/, content/, commands/, updates/
    apps/DIGEST.zip      the bundle of a Flower app

Devices know none of these keys: they get a presigned URL for each object.
"""

from __future__ import annotations

from edge.protocol.names import check_digest, check_kind, check_name


def run_id(token: str) -> str:
    """The run of a callback token."""
    return f"run-{token}"


def reply_key(run: str, phase: str, cohort: str) -> str:
    """Partition key of the ``replies`` table: all answers of one cohort in one phase."""
    return f"{run}#{phase}#{cohort}"


def run_prefix(run: str) -> str:
    """What is kept of a run: its specification, its rounds, its model."""
    return f"runs/{check_name('run', run)}/"


def transient_prefix(run: str) -> str:
    """What a run needs only while it lasts: the bucket's lifecycle rule deletes all below
    ``transient/`` after a month.
    """
    return f"transient/{check_name('run', run)}/"


def arrays_key(run: str, digest: str) -> str:
    """Global weights: one object per digest, shared by all devices of a run."""
    return f"{transient_prefix(run)}arrays/{check_digest(digest)}.safetensors"


def content_key(run: str, digest: str) -> str:
    """Configs too large for a command message (claim check)."""
    return f"{transient_prefix(run)}content/{check_digest(digest)}.json"


def command_key(run: str, digest: str) -> str:
    """A command too large for its transport (claim check)."""
    return f"{transient_prefix(run)}commands/{check_digest(digest)}.json"


def update_key(run: str, phase: str, device: str) -> str:
    """One device's update in one phase. ``phase`` is what :func:`phase_id` gives."""
    return f"{transient_prefix(run)}updates/{phase}/{check_name('device', device)}.safetensors"


def phase_id(server_round: int, kind: str, sequence: int, content: str) -> str:
    """A phase's place in its run, sortable, and what was sent in it: ``00003-train-0007-0a1b2c3d``.

    ``content`` is the digest of what the devices get. A server that resumes a run names a phase as
    the
    one before it did exactly when it asks the same: answers given already count, and only those.
    """
    return f"{server_round:05d}-{check_kind(kind)}-{sequence:04d}-{check_digest(content)[:8]}"


def app_key(digest: str) -> str:
    """The bundle of a Flower app."""
    return f"apps/{check_digest(digest)}.zip"


def spec_key(run: str) -> str:
    """S3 key of a run's specification."""
    return f"{run_prefix(run)}run.json"


def cohorts_key(run: str) -> str:
    """S3 key of a run's cohorts."""
    return f"{run_prefix(run)}cohorts.json"


def champion_key(run: str) -> str:
    """S3 key of the model that the fleet ran when a run began; ``null`` when it ran none of this
    model.
    """
    return f"{run_prefix(run)}champion.json"


def round_key(run: str, server_round: int) -> str:
    """S3 key of one finished round's record."""
    return f"{run_prefix(run)}rounds/{server_round:05d}.json"


def model_key(run: str, name: str) -> str:
    """S3 key of one file of the final model."""
    return f"{run_prefix(run)}model/{name}"
