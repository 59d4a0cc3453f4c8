"""Every command: its name, the sentence that tells it, and the module that declares it.

The command line imports the module of the command that was asked for and no other: importing all of
them takes half a second, which ``mledgeops --help`` and a misspelt name need not wait for.
"""

from __future__ import annotations

from typing import NamedTuple

PACKAGE = "pipelines.cli.commands"


class Entry(NamedTuple):
    """A command. ``module``: below :data:`PACKAGE`; its ``add_parser`` declares the command."""

    name: str
    module: str
    help: str


GROUPS: dict[str, tuple[Entry, ...]] = {
    "runs": (
        Entry("new", "runs.new", "write a Flower app to start from"),
        Entry("run", "runs.run", "federate a Flower app as a pipeline"),
        Entry("attach", "runs.following", "follow a run that goes on by itself"),
        Entry("check", "runs.check", "say what a Flower app uses, and how each of it will run"),
        Entry("runs", "runs.history", "list runs"),
        Entry("show", "runs.history", "show one run"),
        Entry("logs", "runs.logs", "print a run's logs"),
        Entry("stop", "runs.logs", "stop a run under way"),
        Entry("schedule", "runs.schedules", "retrain on a schedule"),
    ),
    "models": (
        Entry("models", "registry.models", "list model versions"),
        Entry("card", "registry.models", "show the model card that an approver judges by"),
        Entry("approve", "registry.decisions", "approve a version: it goes to the fleet"),
        Entry("reject", "registry.decisions", "reject a version"),
        Entry("rollback", "registry.decisions", "make an earlier approved version champion again"),
        Entry("rollout", "registry.rollout", "show rollouts; start one, roll one back"),
        Entry("policy", "registry.policy", "show the policy of prechecks and rollouts, or set it"),
        Entry("audit", "registry.audit", "show the audit trail and whether it is intact"),
        Entry("trace", "registry.trace", "show the lineage of a model from any name in it"),
        Entry("reconcile", "registry.reconcile", "make both registries and the fleet agree again"),
    ),
    "devices": (
        Entry("fleet", "operate.devices", "show the devices and the model each runs"),
        Entry("devices", "operate.enrolment", "enrol devices, rotate certificates, shut one out"),
        Entry(
            "component", "operate.component", "make the agent, or an app, a Greengrass component"
        ),
    ),
    "clouds": (
        Entry("doctor", "operate.doctor", "look for what would keep a run from working"),
        Entry("local", "operate.cloud", "a local cloud that stays"),
        Entry("dashboard", "operate.dashboard", "draw the dashboard and the alarms as a page"),
        Entry("deploy", "operate.deploy", "deploy to the AWS account of your credentials"),
        Entry("destroy", "operate.destroy", "delete the stacks; data and models stay"),
    ),
    "measurements": (
        Entry("bench", "measure.bench", "measure the flagship run"),
        Entry("chaos", "measure.chaos", "run under seeded faults, and check invariants"),
    ),
}
"""By what they concern, in the order of ``mledgeops --help``."""

COMMANDS = {entry.name: entry for group in GROUPS.values() for entry in group}


def as_text() -> str:
    """The groups as ``--help`` lists them."""
    width = max(map(len, COMMANDS)) + 2
    return "\n\n".join(
        "\n".join([f"{title}:", *(f"  {entry.name:<{width}}{entry.help}" for entry in group)])
        for title, group in GROUPS.items()
    )
