"""Functions, tasks and the state machines that start them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from pipelines.aws.rehearsal.rehearsed import Rehearsed

RUNTIMES = {
    "python3.9": (2, 26),
    "python3.10": (2, 26),
    "python3.11": (2, 26),
    "python3.12": (2, 34),
    "python3.13": (2, 34),
    "python3.14": (2, 34),
}
"""The glibc of Lambda's runtimes: Amazon Linux 2, and from 3.12 on Amazon Linux 2023."""
COLD_START_SECONDS = 300
"""What a task needs at most until its first heartbeat: network interface, image, imports."""
FARGATE = {
    256: (512, 2048),
    512: (1024, 4096),
    1024: (2048, 8192),
    2048: (4096, 16384),
    4096: (8192, 30720),
    8192: (16384, 61440),
    16384: (32768, 122880),
}
"""MiB of memory from and to, by CPU units."""
ECS_PRINCIPAL = "iam:CreateServiceLinkedRole ecs.amazonaws.com"


def glibc(seen: Rehearsed) -> Iterator[tuple[str, str]]:
    """Libraries of the functions that their runtime cannot load."""
    runtimes = {str(r.properties["Runtime"]) for r in seen.of_type("AWS::Lambda::Function")}
    for runtime in sorted(runtimes):
        if runtime not in RUNTIMES:
            yield runtime, "Lambda has no such runtime that the rehearsal knows"
            continue
        has = RUNTIMES[runtime]
        for library, needs in seen.bundle.glibc.items() if seen.bundle else ():
            if needs > has:
                yield (
                    library,
                    f"needs glibc {needs[0]}.{needs[1]}; {runtime} has {has[0]}.{has[1]}",
                )


def service_role(seen: Rehearsed) -> Iterator[tuple[str, str]]:
    """A cluster in an account that never used ECS."""
    for resource in seen.of_type("AWS::ECS::Cluster"):
        made = ECS_PRINCIPAL in seen.calls_before[resource.stack]
        if resource.properties.get("CapacityProviders") and not made:
            yield resource.where, "the account has no service-linked role of ECS"


def visibility(seen: Rehearsed) -> Iterator[tuple[str, str]]:
    """Queues whose messages come back while their function still works."""
    seconds = {
        r.name: int(r.properties.get("Timeout", 3)) for r in seen.of_type("AWS::Lambda::Function")
    }
    queues = {r.name: r for r in seen.of_type("AWS::SQS::Queue")}
    for mapping in seen.of_type("AWS::Lambda::EventSourceMapping"):
        queue = queues[str(mapping.properties["EventSourceArn"]).rpartition(":")[2]]
        needed = seconds[str(mapping.properties["FunctionName"]).rpartition(":")[2]]
        if int(queue.properties.get("VisibilityTimeout", 30)) < needed:
            yield mapping.where, f"the queue shows a message again before {needed} s are over"


def fargate_sizes(seen: Rehearsed) -> Iterator[tuple[str, str]]:
    """Tasks of a size that Fargate does not have."""
    for resource in seen.of_type("AWS::ECS::TaskDefinition"):
        cpu, memory = (int(resource.properties[key]) for key in ("Cpu", "Memory"))
        least, most = FARGATE.get(cpu, (1, 0))
        if not least <= memory <= most:
            yield resource.where, f"Fargate has no task of {cpu} CPU units and {memory} MiB"


def cold_start(seen: Rehearsed) -> Iterator[tuple[str, str]]:
    """Tasks that are given up before they can have started."""
    for where, name, state in _states(seen):
        if "ecs:runTask.waitForTaskToken" not in state.get("Resource", ""):
            continue
        seconds = state.get("HeartbeatSeconds", COLD_START_SECONDS)
        if seconds < COLD_START_SECONDS:
            yield (
                f"{where} {name}",
                f"a heartbeat of {seconds} s counts from the task's start, which on Fargate takes "
                f"up to {COLD_START_SECONDS} s",
            )


def no_fallback(seen: Rehearsed) -> Iterator[tuple[str, str]]:
    """Capacity providers that are listed and never place a task."""
    for where, name, state in _states(seen):
        providers = state.get("Parameters", {}).get("CapacityProviderStrategy", [])
        for provider in providers if len(providers) > 1 else ():
            if not provider.get("Weight") and not provider.get("Base"):
                yield (
                    f"{where} {name}",
                    f"{provider['CapacityProvider']} has weight 0 and places no task: start the "
                    "task again with it alone",
                )


def writable_mounts(seen: Rehearsed) -> Iterator[tuple[str, str]]:
    """Mounts into which an unprivileged task cannot write, because its image declares no volume."""
    for resource in seen.of_type("AWS::ECS::TaskDefinition") if seen.images else ():
        for container in resource.properties["ContainerDefinitions"]:
            final = _final_stage(seen.images[container["Name"]])
            for mount in container.get("MountPoints", []):
                path = mount["ContainerPath"]
                if container.get("User", "0") in ("0", "root") or mount.get("ReadOnly"):
                    continue
                if not re.search(rf'^VOLUME .*"{path}"', final, re.MULTILINE):
                    yield f"{container['Name']}.Dockerfile", f"{path} is root's 0755: no VOLUME"
                elif f"chmod 1777 {path}" not in final:
                    yield f"{container['Name']}.Dockerfile", f"{path} is not writable for all"


def cpu_builds(seen: Rehearsed) -> Iterator[tuple[str, str]]:
    """Images that take PyTorch from PyPI, whose builds bring CUDA."""
    for task, text in seen.images.items():
        if re.search(r"ARG APPS=.*\btorch\b", text) and "download.pytorch.org/whl/cpu" not in text:
            yield f"{task}.Dockerfile", "torch comes from PyPI, with gigabytes of CUDA"


def _final_stage(dockerfile: str) -> str:
    return dockerfile[dockerfile.rindex("\nFROM ") :]


def _states(seen: Rehearsed) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Every state of every state machine: where, its name, itself."""
    for resource in seen.of_type("AWS::StepFunctions::StateMachine"):
        definition = resource.properties["DefinitionString"]
        for name, state in _nested(json.loads(definition)):
            yield resource.where, name, state


def _nested(machine: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, state in machine["States"].items():
        yield name, state
        inner = [*state.get("Branches", []), state.get("Iterator"), state.get("ItemProcessor")]
        for part in filter(None, inner):
            yield from _nested(part)
