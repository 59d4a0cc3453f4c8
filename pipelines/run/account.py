"""The deployment in the AWS account that somebody's credentials belong to."""

from __future__ import annotations

import os
from typing import Any

from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from pipelines.deployment import Deployment, check_prefix
from pipelines.errors import UsageError, aws_refusal

PREFIX_VARIABLE = "MLEDGEOPS_PREFIX"
DEFAULT_PREFIX = "mledgeops"


def deployment_of(session: Any) -> Deployment:
    """The deployment in the account and region of a boto3 session.

    Raises:
        UsageError: There is no region, or the prefix is none.
        AwsError: There are no valid credentials.

    """
    prefix = check_prefix(os.environ.get(PREFIX_VARIABLE, DEFAULT_PREFIX))
    if not session.region_name:
        raise UsageError(
            "No AWS region is set: set AWS_DEFAULT_REGION, or a region in your AWS profile."
        )
    try:
        # The user waits for the answer: one attempt, and not for long.
        config = Config(connect_timeout=5, read_timeout=10, retries={"total_max_attempts": 1})
        account = session.client("sts", config=config).get_caller_identity()["Account"]
    except (BotoCoreError, ClientError) as error:
        raise aws_refusal(error) or UsageError(
            f"AWS does not know who you are ({error}): sign in, or run without --cloud aws."
        ) from error
    return Deployment(account=account, region=session.region_name, prefix=prefix)
