"""The root of every error that a user, an operator or a device's owner can mend.

MLEdgeOpsError
  x CodedError         one class with many codes; the code says which case it is
    x ProtocolError      a message or a file from the other side is not what it must be
    x ObjectError        a download or an upload
    x CommandRefused     a command that this device does not run
    x ModelRefused       a model that this device does not install
    x NoModel            a device has no model to predict with
    x RunFailed          a run ended without a model
  x AppError           a Flower app cannot be loaded or does not do what it says
  x ForkingUnsafe      workers are started one by one instead
  x ConfigError        a device's configuration (also a ValueError)
  x RecipeError        a Greengrass recipe (also a ValueError)
  x TransportError     no way to the cloud, or back
  x ObjectMissing      an S3 object is absent, or larger than announced
  x SettingMissing     the environment of a task or function lacks a variable
  x StreamRefused      what a proxy or its server sends is no message
  x EndedEarlyError    leaves an app's own loop of rounds
  x RegistryError      a version, a package, a rollout
  x UsageError         what was asked for cannot be done
  x EnrolledAlready    a claim is asked for a device that has a certificate
  x EnrolmentRefused   a device may not enrol
  x DeployError        CloudFormation
  x AwsError           AWS does not know the caller, or refuses what they ask
  x LocalCloudError    the local cloud

Each carries two things that programs read: the process's exit code, and a stable code that
``--json`` shows. The text is one sentence for a person: what was wrong, where, and what to do.
"""

from __future__ import annotations

from typing import ClassVar


class MLEdgeOpsError(Exception):
    """Something that whoever reads it can mend. The text is one sentence."""

    exit_code: ClassVar[int] = 2
    """What a command exits with: 1 for a job that failed, 2 for what was asked wrongly."""
    code: str = "error"
    """Machine-readable, stable over versions."""


class CodedError(MLEdgeOpsError):
    """An error whose ``code`` is set per instance: programs count it, a person reads the text."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
