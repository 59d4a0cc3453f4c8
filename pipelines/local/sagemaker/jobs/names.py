"""Names of jobs and models that an execution creates."""

from __future__ import annotations

import re
import secrets
import string

_NAME_LIMIT = 63
"""Characters of a job's or model's name: letters, digits and hyphens."""
_STEP_CHARACTERS = 20


def job_name(execution_arn: str, step: str, prefix: str | None = None) -> str:
    """A new name. ``prefix``: what the definition asks for; None: ``pipelines``."""
    number = execution_arn.rsplit("/", 1)[1]
    ending = "".join(secrets.choice(string.ascii_letters + string.digits) for _ in range(10))
    middle = f"{number}-{step[:_STEP_CHARACTERS]}" if prefix is None else number
    tail = _legal(f"{middle}-{ending}")
    return f"{_legal(prefix or 'pipelines')[: _NAME_LIMIT - 1 - len(tail)]}-{tail}"


def job_arn(execution_arn: str, kind: str, name: str) -> str:
    """ARN of a job of a step's type, in the execution's account and region."""
    account = execution_arn.split(":pipeline/")[0]
    return f"{account}:{kind.lower()}-job/{name}"


def _legal(text: str) -> str:
    return re.sub(r"-{2,}", "-", re.sub(r"[^A-Za-z0-9]", "-", text)).strip("-")
