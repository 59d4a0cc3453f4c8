"""A federated run as a step object of SageMaker's Python SDK, version 2 or 3."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edge.training.app_bundle import FlowerApp
from fl_runtime.run.aws import S3Objects
from pipelines.deployment import Deployment
from pipelines.run.account import deployment_of
from pipelines.run.definition import inference_image
from pipelines.run.publication import upload
from pipelines.step import sdk
from pipelines.step.arguments import SIGNATURE, PublishedApp, app_of, callback_arguments
from pipelines.step.plain import check_name, group_of, metadata, outputs
from pipelines.step.register_step import RegisterStep

_callback = sdk.module("callback_step")
_CallbackStep: Any = _callback.CallbackStep


class FederatedStep(_CallbackStep):
    """Trains a Flower app on a fleet of devices, as a step of any SageMaker pipeline.

    ::

        train = FederatedStep("Train", app="apps/wind_farm", fleet="park", rounds=rounds)
        train.properties.Outputs["score"]  # for conditions and other steps
        train.register("Register")  # a step that registers the model, pending approval

    Each option takes a value, a pipeline parameter or another step's property. The app's files go
    to the deployment's bucket when the pipeline's definition is made, as the SDK does with the
    code of a Processing step.

    The outputs are texts, ``value``, ``score`` and ``champion_score`` numbers: ``run``,
    ``outcome`` (``model``, or ``analysis`` of a run without one), ``rounds``, ``participants``,
    ``metric``, ``value``, ``score`` (the metric with its sign turned so that more is better),
    ``champion_score``, ``model_data``, ``evaluation``, ``model_digest``, ``mlflow_run_id``,
    ``mlflow_model_id``, ``execution_arn``, ``score_text``, ``ended``.
    """

    def __init__(
        self,
        name: str,
        *,
        app: str | Path | FlowerApp | PublishedApp,
        deployment: Deployment | None = None,
        session: Any = None,
        upload_app: bool = True,
        depends_on: Sequence[Any] | None = None,
        display_name: str | None = None,
        description: str | None = None,
        **options: Any,
    ) -> None:
        """Check everything that is known before the pipeline runs.

        Args:
            name: The step's.
            app: The Flower app: its folder, or what says that it is published.
            deployment: Whose devices train; found by the session's account unless given.
            session: A boto3 session, or one of the SDK's; of the environment unless given.
            upload_app: Whether the app's files go to the deployment's bucket.
            depends_on: Steps, or their names, that must have ended.
            display_name: What Studio shows.
            description: What Studio shows too.
            options: Those of a run, such as ``devices``, ``rounds``, ``fleet`` and ``settings``;
                instead of ``devices`` also ``min_devices`` and ``max_devices`` (0: all), instead
                of ``settings`` also ``run_config`` and ``strategy_params``.

        Raises:
            UsageError: The name or an option cannot be used.
            AppError: The folder has no Flower app.

        """
        self._boto = getattr(session, "boto_session", session)
        self.app = app_of(app)
        self.deployment = deployment or deployment_of(self._boto_session())
        self._to_upload = upload_app
        kinds = _callback.CallbackOutputTypeEnum
        super().__init__(
            check_name(name),
            sqs_queue_url=self.deployment.queue_url,
            inputs=callback_arguments(self.app, options, _join),
            outputs=[
                # By its name: the enumeration takes every call for its first member.
                _callback.CallbackOutput(item["OutputName"], kinds[item["OutputType"]])
                for item in outputs()
            ],
            display_name=display_name,
            description=description,
            depends_on=depends_on,
        )

    @property
    def arguments(self) -> dict[str, Any]:
        """What the callback's message carries; uploads the app.

        Raises:
            UsageError: The app could not be uploaded.

        """
        if self._to_upload and isinstance(self.app, FlowerApp):
            objects = S3Objects(self._boto_session().client("s3"), self.deployment.bucket)
            upload(self.app, objects)
            self._to_upload = False
        found: dict[str, Any] = self.inputs
        return found

    @property
    def metadata(self) -> dict[str, Any]:
        """``customer_metadata_properties`` by which a registered package is linked to the run."""
        return metadata(self.properties.Outputs)

    def register(
        self,
        name: str = "Register",
        *,
        group: str = "",
        image: str = "",
        depends_on: Sequence[Any] | None = None,
    ) -> RegisterStep:
        """A step that registers the model. The package is linked to its MLflow version as soon as
        it is there, and waits for a person's approval.

        Args:
            name: The step's.
            group: The model package group, which is the model's name in MLflow too; the app's
                unless given.
            image: The container that would serve the model; AWS's PyTorch unless given.
            depends_on: Steps that must have ended, besides this one.

        """
        return RegisterStep(
            name,
            outputs=self.properties.Outputs,
            group=group_of(self.app, group),
            image=image or inference_image(self.deployment.region),
            depends_on=depends_on,
        )

    def _boto_session(self) -> Any:
        if self._boto is None:
            import boto3

            self._boto = boto3.Session()
        return self._boto


def _join(parts: list[Any]) -> Any:
    return sdk.module("functions").Join(on="", values=parts)


def _signature() -> inspect.Signature:
    """The step's own parameters and the options by name, for whoever completes a call."""
    own = inspect.signature(FederatedStep.__init__)
    fixed = [p for p in list(own.parameters.values())[1:] if p.kind is not p.VAR_KEYWORD]
    return own.replace(parameters=[*fixed, *SIGNATURE])


FederatedStep.__signature__ = _signature()
