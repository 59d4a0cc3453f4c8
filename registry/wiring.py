"""Puts the registry together from AWS clients, for entry points: Lambda handlers, commands, the
notebook's desk.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fl_runtime.run.aws import S3Objects, fresh_seconds, setting
from fl_runtime.run.devices import DeviceTable
from fl_runtime.run.signing import kms_signer, kms_verifier
from registry.audit import AuditTrail, S3Entries
from registry.link_function import LinkFunction
from registry.linking import Linking
from registry.mlflow_registry import MlflowRegistry, RunArtifacts
from registry.policy import Policy, put_in_force, recorded_policy
from registry.provenance import ProvenanceRecords
from registry.reconcile.aws import AwsActions, read_snapshot
from registry.reconcile.model import RegistrySnapshot
from registry.record_signer import RecordSigner
from registry.rollout.aws import DynamoStore, HeartbeatFleet, IotJobs, object_url
from registry.rollout.candidates import Candidates
from registry.rollout.conductor import Conductor
from registry.rollout.job_ids import JobIds
from registry.rollout.manifests import Manifests
from registry.rollout.service import Outcomes, RolloutService, StepFunctions
from registry.rollout.stale_devices import StaleDevices
from registry.rollout.waves import WaveJobs
from registry.run_record import RunRecords
from registry.sagemaker_registry import SageMakerRegistry


@dataclass(frozen=True, kw_only=True)
class Clients:
    """The clients that the registry works with."""

    s3: Any
    dynamodb: Any
    sagemaker: Any
    steps: Any
    iot: Any
    kms: Any
    sts: Any
    functions: Any
    """Lambda."""
    mlflow: Callable[[], Any]
    """Makes an MlflowClient. It is called when one is first needed: importing MLflow takes
    seconds.
    """


def make_clients(client: Callable[[str], Any], mlflow: Callable[[], Any]) -> Clients:
    """``client``: makes the boto3 client of a service, by its name."""
    return Clients(
        s3=client("s3"),
        dynamodb=client("dynamodb"),
        sagemaker=client("sagemaker"),
        steps=client("stepfunctions"),
        iot=client("iot"),
        kms=client("kms"),
        sts=client("sts"),
        functions=client("lambda"),
        mlflow=mlflow,
    )


@dataclass(frozen=True, kw_only=True)
class RegistryResources:
    """The deployment's resources that the registry uses."""

    bucket: str
    devices_table: str
    rollouts_table: str
    rollout_machine: str
    """ARN of the state machine that conducts rollouts."""
    models_key: str
    """KMS key that signs manifests."""
    records_key: str
    """KMS key that signs provenance records."""
    job_urls_role: str
    """Role with which AWS IoT presigns the URLs of job documents."""
    fresh_seconds: float
    """How long a device counts as online after its last heartbeat."""

    @property
    def prefix(self) -> str:
        """The deployment's, with which the names of its resources begin."""
        return self.rollout_machine.rsplit(":", 1)[1].removesuffix("-rollout")

    @property
    def region(self) -> str:
        """The deployment's region."""
        return self.rollout_machine.split(":")[3]

    @property
    def account(self) -> str:
        """The deployment's account."""
        return self.rollout_machine.split(":")[4]


def resources_from_environment(environ: dict[str, str] | None = None) -> RegistryResources:
    """Read the resources' names. Raises SettingMissing for the first that is not set."""
    return RegistryResources(
        bucket=setting("MLEDGEOPS_BUCKET", environ),
        devices_table=setting("MLEDGEOPS_DEVICES_TABLE", environ),
        rollouts_table=setting("MLEDGEOPS_ROLLOUTS_TABLE", environ),
        rollout_machine=setting("MLEDGEOPS_ROLLOUT_MACHINE", environ),
        models_key=setting("MLEDGEOPS_MODELS_KEY", environ),
        records_key=setting("MLEDGEOPS_RECORDS_KEY", environ),
        job_urls_role=setting("MLEDGEOPS_JOB_URLS_ROLE", environ),
        fresh_seconds=fresh_seconds(environ),
    )


class Registry:
    """Both registries with their audit trail, policy and rollouts."""

    def __init__(
        self, clients: Clients, resources: RegistryResources, clock: Callable[[], float] = time.time
    ) -> None:
        self._clients = clients
        self._resources = resources
        self._clock = clock
        self.objects = S3Objects(clients.s3, resources.bucket)
        self.prefix = resources.prefix
        self.devices = DeviceTable(clients.dynamodb, resources.devices_table)
        self.sagemaker = SageMakerRegistry(clients.sagemaker)
        self.store = DynamoStore(clients.dynamodb, resources.rollouts_table)
        self.audit = AuditTrail(
            S3Entries(clients.s3, resources.bucket),
            lambda entry, head: self.mlflow.remember_head(entry.subject, head),
        )
        self.records = ProvenanceRecords(
            self.objects, kms_verifier(clients.kms, resources.records_key)
        )
        self.run_records = RunRecords(self.objects, self.records.verify, resources.bucket)
        self.candidates = Candidates(self.objects, self.sagemaker, self.records, self.policy)
        self.link_function = LinkFunction(clients.functions, f"{resources.prefix}-link")
        self.rollouts = RolloutService(
            self.store,
            self.candidates,
            self.audit,
            StepFunctions(client=clients.steps, machine=resources.rollout_machine),
            mlflow=lambda: self.mlflow,
            policy=self.policy,
            clock=clock,
        )

    @functools.cached_property
    def mlflow_client(self) -> Any:
        """An MlflowClient."""
        return self._clients.mlflow()

    @functools.cached_property
    def mlflow(self) -> MlflowRegistry:
        """MLflow's registry."""
        return MlflowRegistry(self.mlflow_client)

    @functools.cached_property
    def conductor(self) -> Conductor:
        """Advances rollouts."""
        outcomes = Outcomes(lambda: self.mlflow, self.audit, self._clock)
        return Conductor(
            self.store, *self._rollout_parts, on_end=outcomes.record, unwanted=outcomes.unwanted
        )

    @functools.cached_property
    def stale_devices(self) -> StaleDevices:
        """Finds and updates stale devices."""
        return StaleDevices(self.store, *self._rollout_parts, self.audit, self._clock)

    def policy(self) -> Policy:
        """The policy in force. Raises RegistryError when it is not the one of the audit trail."""
        return recorded_policy(self.objects, self.audit)

    def set_policy(self, policy: Policy, who: str) -> None:
        """Put a policy in force, and record who did."""
        put_in_force(self.objects, self.audit, policy, who=who, at=self._clock())

    def linking(self) -> Linking:
        """Links packages, with the prechecks of the policy in force."""
        return Linking(
            mlflow=self.mlflow,
            artifacts=RunArtifacts(self.mlflow_client),
            sagemaker=self.sagemaker,
            objects=self.objects,
            heartbeats=self.devices.fleet,
            prechecks=self.policy().prechecks,
        )

    def record_signer(self) -> RecordSigner:
        """Signs provenance records, in the link function."""
        return RecordSigner(
            sign=kms_signer(self._clients.kms, self._resources.records_key),
            records=self.records,
            objects=self.objects,
            mlflow=self.mlflow,
            sagemaker=self.sagemaker,
            audit=self.audit,
            clock=self._clock,
        )

    def caller(self) -> str:
        """ARN of the identity whose credentials are used, as AWS vouches for it to the caller."""
        return str(self._clients.sts.get_caller_identity()["Arn"])

    def reconciliation(self) -> tuple[RegistrySnapshot, AwsActions]:
        """What to plan repairs from, and what executes them."""
        fleets = self.store.fleets()
        snapshot = read_snapshot(
            self.mlflow, self.sagemaker, self.store, fleets, self.stale_devices
        )
        actions = AwsActions(
            self.mlflow,
            self.sagemaker,
            self.linking(),
            self.link_function,
            self.rollouts,
            fleets,
            self.stale_devices,
            self.audit,
            self._clock,
        )
        return snapshot, actions

    @functools.cached_property
    def _rollout_parts(self) -> tuple[WaveJobs, HeartbeatFleet, Manifests]:
        clients, names = self._clients, self._resources
        iot = IotJobs(clients.iot, names.region, names.account, names.job_urls_role)
        return (
            WaveJobs(iot, JobIds(names.prefix)),
            HeartbeatFleet(self.devices.fleet, self._clock, names.fresh_seconds),
            Manifests(
                kms_signer(clients.kms, names.models_key),
                object_url(names.bucket, names.region),
                self.candidates.verify,
            ),
        )
