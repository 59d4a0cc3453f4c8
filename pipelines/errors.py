"""Errors of commands and notebooks. The tree of all errors is drawn in :mod:`edge.errors`."""

from __future__ import annotations

from edge.errors import MLEdgeOpsError


class UsageError(MLEdgeOpsError):
    """The user asked for something that cannot be done. The text says what, in one sentence."""

    code = "usage"


class AwsError(MLEdgeOpsError):
    """AWS does not know who asks, or does not let them. The text says what to do about it."""

    code = "aws"


_EXPIRED = ("ExpiredToken", "ExpiredTokenException", "RequestExpired", "TokenRefreshRequired")
_UNKNOWN = (
    "AuthFailure",
    "InvalidAccessKeyId",
    "InvalidClientTokenId",
    "SignatureDoesNotMatch",
    "UnrecognizedClientException",
)
_DENIED = ("AccessDenied", "AccessDeniedException", "UnauthorizedOperation")
_SIGN_IN = "sign in again (`aws sso login`), and repeat the command"


def aws_refusal(error: BaseException) -> AwsError | None:
    """What an error of boto3 says of the caller's credentials, rights or network; None for others.

    It knows them by their names, since importing botocore takes longer than a command.
    """
    if not (type(error).__module__ or "").startswith(("botocore.", "boto3.")):
        return None
    kind = type(error).__name__
    response = getattr(error, "response", {}).get("Error", {})
    code, message = response.get("Code", ""), str(response.get("Message", error)).rstrip(".")
    if code in _EXPIRED or kind in ("UnauthorizedSSOTokenError", "TokenRetrievalError"):
        return AwsError(f"The session of your AWS credentials has expired: {_SIGN_IN}.")
    if code in _UNKNOWN:
        return AwsError(f"AWS does not know your credentials ({code}): {_SIGN_IN}.")
    if "Credential" in kind or kind == "SSOTokenLoadError":
        return AwsError(
            "There are no AWS credentials: sign in (`aws sso login`), or set AWS_PROFILE to a "
            "profile that has some."
        )
    if code in _DENIED:
        return AwsError(
            f"AWS refuses it: {message}. Ask the account's administrator for this permission."
        )
    if kind in ("EndpointConnectionError", "ConnectTimeoutError", "ReadTimeoutError"):
        return AwsError(f"{message}: check the network, and that the region has this service.")
    return None


class DeployError(MLEdgeOpsError):
    """The deployment cannot be made. The text says why, in one sentence."""

    code = "deploy"
