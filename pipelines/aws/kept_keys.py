"""KMS keys that an earlier deployment left: found by their aliases, for the next one to use.

Devices trust the signing keys by their public halves (``trust.json``), and the data is encrypted
with the data key: a deployment with new keys could use neither.
"""

from __future__ import annotations

from typing import Any

from pipelines.deployment import Deployment
from pipelines.errors import DeployError

KEY_PARAMETERS = {
    "data": "DataKey",
    "commands": "CommandsKey",
    "models": "ModelsKey",
    "records": "RecordsKey",
}
"""The base stack's parameters, by what the key is for."""
_USABLE = "Enabled"


def kept_keys(kms: Any, d: Deployment) -> dict[str, str]:
    """Parameters of the base stack for keys that exist already. ``kms``: a client.

    Raises:
        DeployError: An alias leads to a key that cannot be used.

    """
    aliases = {
        "data": f"alias/{d.prefix}",
        "commands": d.commands_key,
        "models": d.models_key,
        "records": d.records_key,
    }
    found = {}
    for purpose, alias in aliases.items():
        try:
            key = kms.describe_key(KeyId=alias)["KeyMetadata"]
        except kms.exceptions.NotFoundException:
            continue
        if key["KeyState"] != _USABLE:
            raise DeployError(
                f"The key {alias} of an earlier deployment is in state {key['KeyState']}: cancel "
                f"its deletion (aws kms cancel-key-deletion --key-id {key['KeyId']}), enable it, "
                f"or delete the alias (aws kms delete-alias --alias-name {alias}) to start with "
                "new keys."
            )
        found[KEY_PARAMETERS[purpose]] = key["Arn"]
    return found
