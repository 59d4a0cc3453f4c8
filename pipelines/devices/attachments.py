"""The IoT policies' certificates, when a deployment goes and comes again.

AWS IoT deletes no policy that is attached to a certificate, so a stack with enrolled devices could
not be deleted: https://docs.aws.amazon.com/iot/latest/apireference/API_DeletePolicy.html
"""

from __future__ import annotations

from typing import Any

from pipelines.deployment import Deployment


def detach_all(iot: Any, d: Deployment) -> int:
    """Detach the deployment's policies from all certificates (idempotent); returns from how many.

    Without a policy no device connects. Each keeps its certificate.
    """
    detached = 0
    for policy in (d.device_policy, d.claim_policy):
        try:
            pages = iot.get_paginator("list_targets_for_policy").paginate(policyName=policy)
            targets = [target for page in pages for target in page["targets"]]
        except iot.exceptions.ResourceNotFoundException:
            continue
        for target in targets:
            iot.detach_policy(policyName=policy, target=target)
        detached += len(targets)
    return detached


def attach_again(iot: Any, d: Deployment) -> int:
    """Attach the device policy to the certificates of an earlier deployment's things (idempotent);
    returns to how many.

    A certificate that has a policy is left alone: a Greengrass core has one of its own.
    """
    pages = iot.get_paginator("list_things").paginate(thingTypeName=d.thing_type)
    attached = 0
    for thing in [thing["thingName"] for page in pages for thing in page["things"]]:
        for principal in iot.list_thing_principals(thingName=thing)["principals"]:
            if iot.list_attached_policies(target=principal)["policies"]:
                continue
            iot.attach_policy(policyName=d.device_policy, target=principal)
            attached += 1
    return attached
