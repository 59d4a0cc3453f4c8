"""The snapshot and the actions on AWS and MLflow."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from fakes.evidence import package
from fakes.reconcile_world import World, linked
from fakes.registries import MemoryModels, MemorySageMaker
from fakes.rollout_drive import Drive
from fakes.rollouts import Plant
from fakes.trail import MemoryEntries
from msgspec import structs
from msgspec.structs import replace

from fl_runtime.run.errors import ObjectMissing
from registry.audit import AuditTrail
from registry.errors import RegistryError
from registry.mlflow_registry import MlflowRegistry
from registry.model_version import CHECKS_TAG, Package
from registry.reconcile.aws import AwsActions, read_snapshot
from registry.reconcile.model import FleetState, RegistrySnapshot
from registry.reconcile.plan import plan
from registry.reconcile.repair import repair
from registry.sagemaker_registry import SageMakerRegistry


def test_a_version_whose_run_left_no_evidence_says_so_and_is_not_asked_again() -> None:
    world, said = World(), {}
    version = replace(world.v[linked(world)], checks="")

    class Linked:
        def give_evidence(self, package: Package, number: str) -> None:
            raise ObjectMissing("runs/run-1/comparison.json")

    mlflow = SimpleNamespace(
        versions=lambda: [version],
        set_tags=lambda name, number, tags: said.update({f"{name}/{number}": tags}),
    )
    actions = AwsActions(mlflow, None, Linked(), None, None, [], None, None, lambda: 0.0)  # type: ignore[arg-type]

    def snapshot() -> RegistrySnapshot:
        sagemaker = SimpleNamespace(packages=world.packages)
        return read_snapshot(mlflow, sagemaker, None, [], None)  # type: ignore[arg-type]

    assert repair(actions, snapshot(), plan(snapshot())) == []
    assert said == {
        f"m/{version.version}": {
            CHECKS_TAG: "no evidence: ObjectMissing: runs/run-1/comparison.json"
        }
    }
    version = replace(version, checks=said[f"m/{version.version}"][CHECKS_TAG])
    assert plan(snapshot()) == []


class Store:
    """The records of two fleets: one runs a model, one is getting its first."""

    def __init__(self) -> None:
        running = Drive(Plant(2))
        running.to_end(running.begin(1))
        coming = Drive(Plant(2))
        coming.begin(2)
        self.records = [
            running.store.current("f"),
            structs.replace(coming.store.current("f"), fleet="g"),
        ]
        self.coming = structs.replace(
            coming.store.all["f", 1], fleet="g", model_version="sun/2", state="Waves"
        )

    def get(self, fleet: str, number: int) -> Any:
        return self.coming if fleet == "g" else None


def test_a_snapshot_says_what_each_models_fleet_runs_or_is_getting() -> None:
    store, none = Store(), SimpleNamespace(versions=list, packages=list)
    stale = SimpleNamespace(find=lambda fleet: ["new"])
    found = read_snapshot(none, none, store, store.records, stale)  # type: ignore[arg-type]
    assert found.fleets == {
        "wind": FleetState(runs="1", stale=("new",)),
        "sun": FleetState(busy=True),
    }


def test_a_decision_in_mlflow_is_recorded_and_passed_on() -> None:
    sagemaker, trail, mlflow = MemorySageMaker(), AuditTrail(MemoryEntries()), MemoryModels()
    sagemaker.add("arn:package", **package().metadata)
    registry = MlflowRegistry(mlflow)
    registry.register(package())
    updated: list[Any] = []
    signed: list[str] = []
    stale = SimpleNamespace(update=lambda *given: updated.append(given) or ["job-1"])

    def refuse(*_: Any, **__: Any) -> None:
        raise RegistryError("Fleet f runs x/1 already; nothing was changed.")

    actions = AwsActions(
        registry,
        SageMakerRegistry(sagemaker),
        None,  # type: ignore[arg-type]
        SimpleNamespace(sign=signed.append),  # type: ignore[arg-type]
        SimpleNamespace(begin=refuse),  # type: ignore[arg-type]
        Store().records,
        stale,  # type: ignore[arg-type]
        trail,
        lambda: 7.0,
    )
    actions.decide("arn:package", "Approved", "MLflow's tag says Approved")
    (entry,) = trail.entries()
    assert (entry.who, entry.what, entry.subject) == ("(in MLflow)", "approve", "arn:package")
    found = SageMakerRegistry(sagemaker).get("arn:package")
    assert found.approval == "Approved"
    version = registry.versions()[0]
    actions.name(found, version)
    actions.set_approval_tag(version, "Approved")
    version = registry.versions()[0]
    assert (version.approval, version.synced) == ("Approved", "Approved")
    assert SageMakerRegistry(sagemaker).get("arn:package").model_version == "x/1"
    actions.set_champion("x", "1")
    assert registry.champion("x") is not None
    actions.drop_champion("x")
    assert registry.champion("x") is None
    actions.update_stale_devices("wind", ["new"])
    assert (updated, actions.jobs) == ([("f", ["new"])], {"f": ["job-1"]})
    actions.sign(found, "1")
    assert signed == ["arn:package"], "the link function signs, nobody else"
    actions.roll_out(version, "it was approved")  # another event was faster
