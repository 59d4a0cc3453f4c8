"""Processing and Training steps as real processes with SageMaker's folders and environment."""

from __future__ import annotations

import importlib.util
import io
import json
import os
import signal
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import psutil
import pytest
from fakes.s3 import MemoryS3
from support.pipelines import engine_on, ran, until

from pipelines.local.home import LocalCloudError
from pipelines.local.sagemaker.jobs.names import job_name
from pipelines.local.sagemaker.jobs.process import private_mounts
from pipelines.local.sagemaker.jobs.stand_ins import StandIns

S3 = "s3://bucket"


def archive(**files: str) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as made:
        for name, text in files.items():
            entry = tarfile.TarInfo(name.replace("__", "."))
            entry.size = len(text)
            made.addfile(entry, io.BytesIO(text.encode()))
    return out.getvalue()


def processing(name: str, script: str, **more: Any) -> dict[str, Any]:
    arguments = {
        "AppSpecification": {
            "ImageUri": "1.dkr.ecr/x",
            "ContainerEntrypoint": ["python3", "/opt/ml/processing/input/code/run.py"],
            "ContainerArguments": ["--factor", "3"],
        },
        "Environment": {"OUT": "/opt/ml/processing/out"},
        "ProcessingInputs": [
            place("code", f"{S3}/{script}", "/opt/ml/processing/input/code"),
            place("data", f"{S3}/data/", "/opt/ml/processing/input/data"),
        ],
        "ProcessingOutputConfig": {
            "Outputs": [
                {
                    "OutputName": "made",
                    "S3Output": {"S3Uri": f"{S3}/made", "LocalPath": "/opt/ml/processing/out"},
                }
            ]
        },
        "RoleArn": "arn:aws:iam::000000000000:role/team",
    }
    return {"Name": name, "Type": "Processing", "Arguments": arguments, **more}


def place(name: str, uri: str, path: str) -> dict[str, Any]:
    return {"InputName": name, "S3Input": {"S3Uri": uri, "LocalPath": path}}


SCRIPT = """
import json, os, pathlib, sys
here = pathlib.Path(os.environ["OUT"]).parent
data = sum(int(f.read_text()) for f in sorted((here / "input/data").rglob("*.txt")))
config = json.loads((here.parent / "config/processingjobconfig.json").read_text())
out = pathlib.Path(os.environ["OUT"])
(out / "sub").mkdir()
(out / "sub" / "report.json").write_text(json.dumps(
    {"m": {"sum": data * int(sys.argv[2]), "image": config["AppSpecification"]["ImageUri"]}}))
"""
REPORT = {"PropertyFileName": "Report", "OutputName": "made", "FilePath": "sub/report.json"}


def checked_by(step: str) -> dict[str, Any]:
    value = {
        "Std:JsonGet": {
            "PropertyFile": {"Get": f"Steps.{step}.PropertyFiles.Report"},
            "Path": "m.sum",
        }
    }
    condition = {"Type": "Equals", "LeftValue": value, "RightValue": 9}
    wrong = {"Name": "Wrong", "Type": "Fail", "Arguments": {"ErrorMessage": "no"}}
    arguments = {"Conditions": [condition], "IfSteps": [], "ElseSteps": [wrong]}
    return {"Name": "Sum", "Type": "Condition", "Arguments": arguments}


@pytest.fixture
def s3() -> MemoryS3:
    made = MemoryS3()
    made.data |= {
        "bucket/run.py": SCRIPT.encode(),
        "bucket/data/a.txt": b"1",
        "bucket/data/deep/b.txt": b"2",
        "bucket/database.txt": b"100",
    }
    return made


@pytest.mark.parametrize("mounted", [True, False])
def test_a_processing_script_finds_its_inputs_and_its_outputs_are_kept(
    tmp_path: Path, s3: MemoryS3, mounted: bool
) -> None:
    """With an /opt/ml of its own, and where the kernel allows none."""
    if mounted and not private_mounts():
        pytest.skip("this kernel allows no private mounts")
    engine, _ = engine_on(tmp_path, lambda: mounted, s3=s3)
    step = processing("Prepare_1", "run.py", PropertyFiles=[REPORT])
    made = ran(engine, {"Steps": [step, checked_by("Prepare_1")]})
    assert (made.status, made.reason) == ("Succeeded", "")
    report = json.loads(s3.data["bucket/made/sub/report.json"])
    assert report == {"m": {"sum": 9, "image": "1.dkr.ecr/x"}}
    assert not any((tmp_path / "jobs").iterdir()), "a job's folder goes with it"
    if mounted:
        assert not Path("/opt/ml/processing").exists(), "nobody else sees it"


def training(source: str = "source.tar.gz", **more: Any) -> dict[str, Any]:
    hyperparameters = {
        "sagemaker_program": '"train.py"',
        "sagemaker_submit_directory": f'"{S3}/{source}"',
        "sagemaker_region": '"us-east-1"',
        "learning-rate": "0.1",
        "layers": "[1, 2]",
        "name": '"x y"',
        "job": {"Get": "Execution.TrainingJobName"},
    }
    arguments = {
        "AlgorithmSpecification": {
            "TrainingImage": "1.dkr.ecr/sklearn",
            "TrainingInputMode": "File",
            "MetricDefinitions": [{"Name": "loss", "Regex": "loss=([0-9.]+)"}],
        },
        "HyperParameters": hyperparameters,
        "InputDataConfig": [
            {
                "ChannelName": "train-set",
                "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": f"{S3}/data"}},
            }
        ],
        "OutputDataConfig": {"S3OutputPath": f"{S3}/models"},
        "ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1},
        "StoppingCondition": {"MaxRuntimeInSeconds": 60},
        "RoleArn": "arn:aws:iam::000000000000:role/team",
    }
    return {"Name": "Fit", "Type": "Training", "Arguments": arguments, **more}


TRAIN = """
import json, os, pathlib, sys
model = pathlib.Path(os.environ["SM_MODEL_DIR"])
channel = pathlib.Path(os.environ["SM_CHANNEL_TRAIN-SET"])
(model / "seen.json").write_text(json.dumps({
    "argv": sys.argv[1:], "cwd": os.getcwd(), "files": sorted(os.listdir(channel)),
    "hps": json.loads(os.environ["SM_HPS"]), "channels": os.environ["SM_CHANNELS"],
    "rate": os.environ["SM_HP_LEARNING-RATE"], "args": json.loads(os.environ["SM_USER_ARGS"]),
    "config": json.loads(
        pathlib.Path(os.environ["SM_INPUT_CONFIG_DIR"], "resourceconfig.json").read_text()),
}))
print("loss=2.0"); print("loss=0.25")
"""


@pytest.mark.parametrize("mounted", [True, False])
def test_a_training_script_gets_what_the_toolkit_would_give_it(
    tmp_path: Path, s3: MemoryS3, mounted: bool
) -> None:
    """Judge: ENVIRONMENT_VARIABLES.md of the SageMaker training toolkit."""
    s3.data["bucket/source.tar.gz"] = archive(train__py=TRAIN)
    engine, _ = engine_on(tmp_path, lambda: mounted, s3=s3)
    made = ran(engine, {"Steps": [training()]})
    assert (made.status, made.reason) == ("Succeeded", "")
    found = made.results["Fit"]["Properties"]
    assert found["FinalMetricDataList"] == [{"MetricName": "loss", "Value": 0.25}]
    model, name = found["ModelArtifacts"]["S3ModelArtifacts"], found["TrainingJobName"]
    assert model == f"{S3}/models/{name}/output/model.tar.gz"
    with tarfile.open(fileobj=io.BytesIO(s3.data[model.removeprefix("s3://")])) as kept:
        seen = json.loads(kept.extractfile("seen.json").read())  # type: ignore[union-attr]
    arguments = ["--job", name, "--layers", "[1, 2]", "--learning-rate", "0.1", "--name", "x y"]
    assert seen["argv"] == seen["args"] == arguments
    own = {"job": name, "layers": [1, 2], "learning-rate": 0.1, "name": "x y"}
    assert (seen["hps"], seen["rate"]) == (own, "0.1")
    assert (seen["files"], seen["channels"]) == (["a.txt", "deep"], '["train-set"]')
    assert seen["config"]["hosts"] == ["algo-1"]
    assert seen["config"]["current_instance_type"] == "ml.m5.large"
    assert seen["cwd"].endswith("/code") and (not mounted or seen["cwd"] == "/opt/ml/code")


@pytest.mark.proof
def test_what_a_job_installs_stays_with_the_job(tmp_path: Path, s3: MemoryS3) -> None:
    """Its requirements.txt names a package that is there already, and one that is not."""
    (tmp_path / "wheel").mkdir()
    wheel = tmp_path / "wheel" / "only_for_the_job-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as made:
        made.writestr("only_for_the_job.py", "x = 1")
        info = "only_for_the_job-1.0.dist-info"
        made.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: only-for-the-job\nVersion: 1.0"
        )
        made.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any"
        )
        made.writestr(f"{info}/RECORD", "")
    script = "import only_for_the_job, msgspec; print(only_for_the_job.__file__)"
    requirements = f"msgspec\n{wheel}\n"
    s3.data["bucket/source.tar.gz"] = archive(train__py=script, requirements__txt=requirements)
    made = ran(engine_on(tmp_path, s3=s3)[0], {"Steps": [training()]})
    assert (made.status, made.reason) == ("Succeeded", "")
    [log] = (tmp_path / "logs").iterdir()
    assert f"{tmp_path}/jobs/" in log.read_text()
    assert importlib.util.find_spec("only_for_the_job") is None


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("raise SystemExit('the column price is missing')", "exit code 1; the column price is mis"),
        (
            "import pathlib; pathlib.Path('/opt/ml/output/failure').write_text('no rows'); 1 / 0",
            "AlgorithmError: no rows",
        ),
    ],
)
def test_a_failing_script_says_why_and_is_not_tried_again(
    tmp_path: Path, s3: MemoryS3, script: str, why: str
) -> None:
    if not private_mounts():
        pytest.skip("this kernel allows no private mounts")
    s3.data["bucket/source.tar.gz"] = archive(train__py=script)
    retry = [{"ExceptionType": ["SageMaker.JOB_INTERNAL_ERROR"], "MaxAttempts": 3}]
    made = ran(engine_on(tmp_path, s3=s3)[0], {"Steps": [training(RetryPolicies=retry)]})
    assert why in made.reason
    assert "log: " in made.reason
    assert made.steps["Fit"]["AttemptCount"] == 1


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"bucket/run.py": None}, "There are no objects at s3://bucket/run.py"),
        ({"bucket/data/../../../evil.txt": b"1"}, "leads out of the job's folder"),
    ],
)
def test_inputs_that_cannot_be_had_are_named(
    tmp_path: Path, s3: MemoryS3, change: dict[str, Any], why: str
) -> None:
    s3.data = {k: v for k, v in {**s3.data, **change}.items() if v is not None}
    made = ran(engine_on(tmp_path, s3=s3)[0], {"Steps": [processing("P", "run.py")]})
    assert why in made.reason
    assert not (tmp_path / "jobs" / "evil.txt").exists()


def test_an_archive_cannot_write_outside_the_jobs_folder(tmp_path: Path, s3: MemoryS3) -> None:
    s3.data["bucket/source.tar.gz"] = archive(**{"../../../evil__py": "x"})
    made = ran(engine_on(tmp_path, s3=s3)[0], {"Steps": [training()]})
    assert "cannot be unpacked" in made.reason
    assert not list(tmp_path.rglob("evil.py"))


def test_a_stop_ends_the_jobs_process_and_what_it_started(tmp_path: Path, s3: MemoryS3) -> None:
    s3.data["bucket/run.py"] = b"import subprocess; subprocess.run(['sleep', '600'])"
    engine, _ = engine_on(tmp_path, s3=s3)
    execution = engine.start("p", {"Steps": [processing("P", "run.py")]}, {})
    until(lambda: sleepers())
    engine.stop(execution)
    until(lambda: execution.status == "Stopped")
    assert execution.steps["P"]["StepStatus"] == "Stopped"
    until(lambda: not sleepers())


def sleepers() -> list[psutil.Process]:
    mine = psutil.Process().children(recursive=True)
    return [p for p in mine if p.is_running() and p.name() == "sleep"]


def test_a_job_whose_process_is_killed_is_tried_again_as_its_policy_says(
    tmp_path: Path, s3: MemoryS3
) -> None:
    """SageMaker calls it an internal error of the job."""
    s3.data["bucket/run.py"] = b"import subprocess; subprocess.run(['sleep', '600'])"
    engine, _ = engine_on(tmp_path, s3=s3)
    retry = {
        "ExceptionType": ["SageMaker.JOB_INTERNAL_ERROR"],
        "IntervalSeconds": 0,
        "MaxAttempts": 1,
    }
    step = processing("P", "run.py", RetryPolicies=[retry])
    execution = engine.start("p", {"Steps": [step]}, {})
    until(sleepers)
    s3.data["bucket/run.py"] = SCRIPT.encode()
    launcher = sleepers()[0].parents()[1]
    os.kill(launcher.pid, signal.SIGKILL)
    until(lambda: execution.status == "Succeeded")
    assert execution.steps["P"]["AttemptCount"] == 2


def test_a_job_that_takes_too_long_is_ended(tmp_path: Path, s3: MemoryS3) -> None:
    s3.data["bucket/run.py"] = b"import time; time.sleep(600)"
    step = processing("P", "run.py")
    step["Arguments"]["StoppingCondition"] = {"MaxRuntimeInSeconds": 1}
    made = ran(engine_on(tmp_path, s3=s3)[0], {"Steps": [step]})
    assert made.reason == "MaxRuntimeExceeded: the job ran for 1 s."


CACHE = {"Enabled": True, "ExpireAfter": "PT1H"}


def test_a_cached_step_takes_the_earlier_result_until_its_arguments_change(
    tmp_path: Path, s3: MemoryS3
) -> None:
    engine, _ = engine_on(tmp_path, s3=s3)
    step = processing("P", "run.py", CacheConfig=CACHE, PropertyFiles=[REPORT])
    first = ran(engine, {"Steps": [step, checked_by("P")]})
    s3.data["bucket/run.py"] = b"raise SystemExit('it ran again')"
    second = ran(engine, {"Steps": [step, checked_by("P")]})
    assert second.status == "Succeeded"
    hit = {"SourcePipelineExecutionArn": first.arn}
    assert second.steps["P"]["CacheHitResult"] == hit
    assert second.steps["P"]["Metadata"] == first.steps["P"]["Metadata"]
    step["Arguments"]["Environment"]["X"] = "changed"
    assert "it ran again" in ran(engine, {"Steps": [step]}).reason


STAND_IN = """
import json, pathlib
def fit(arguments):
    files = sorted(p.name for p in pathlib.Path("/opt/ml/input/data/train-set").iterdir())
    pathlib.Path("/opt/ml/model/model.json").write_text(json.dumps(files))
    return {"SecondaryStatus": arguments["AlgorithmSpecification"]["TrainingImage"]}
def transform(arguments):
    return {"TransformOutput": {"S3OutputPath": arguments["TransformOutput"]["S3OutputPath"]}}
def wrong(arguments):
    return 7
"""


def test_a_stand_in_does_what_an_image_would(tmp_path: Path, s3: MemoryS3) -> None:
    if not private_mounts():
        pytest.skip("this kernel allows no private mounts")
    (tmp_path / "mine.py").write_text(STAND_IN)
    built_in = training()
    built_in["Arguments"]["HyperParameters"] = {"max_depth": "5"}
    uri = {"Get": "Steps.Fit.ModelArtifacts.S3ModelArtifacts"}
    transform = {
        "Name": "Batch",
        "Type": "Transform",
        "Arguments": {"TransformOutput": {"S3OutputPath": uri}},
    }
    definition = {"Steps": [built_in, transform]}
    engine, _ = engine_on(tmp_path, s3=s3)
    with pytest.raises(
        ValueError, match=r"the step Fit \(Training\): it trains by the code of its"
    ):
        engine.start("p", definition, {})
    stand_ins = StandIns(tmp_path)
    stand_ins.set("p", "Fit", f"{tmp_path}/mine.py:fit")
    stand_ins.set("p", "Batch", f"{tmp_path}/mine.py:transform")
    made = ran(engine, definition)
    assert (made.status, made.reason) == ("Succeeded", "")
    found = made.results["Fit"]["Properties"]
    assert found["SecondaryStatus"] == "1.dkr.ecr/sklearn"
    model = found["ModelArtifacts"]["S3ModelArtifacts"]
    assert made.results["Batch"]["Properties"]["TransformOutput"]["S3OutputPath"] == model
    assert model.removeprefix("s3://") in s3.data
    stand_ins.set("p", "Batch", f"{tmp_path}/mine.py:wrong")
    assert "wrong returned int: not a dictionary" in ran(engine, definition).reason
    stand_ins.remove("p", "Batch")
    with pytest.raises(ValueError, match=r"the step Batch \(Transform\)"):
        engine.start("p", definition, {})


@pytest.mark.parametrize("reference", ["mine.py", "none.py:fit", "mine.py:1x"])
def test_a_stand_in_that_is_no_function_of_a_file_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reference: str
) -> None:
    (tmp_path / "mine.py").write_text(STAND_IN)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(LocalCloudError, match=r"must be FILE.py:FUNCTION"):
        StandIns(tmp_path).set("p", "Fit", reference)
    (tmp_path / "stand-ins.json").write_text("[1]")
    with pytest.raises(LocalCloudError, match="mend or remove it"):
        StandIns(tmp_path).find("p", "Fit")


@pytest.mark.parametrize("prefix", [None, "my_team.churn", "x" * 80])
def test_names_of_jobs_are_legal_and_differ(prefix: str | None) -> None:
    """Judge: botocore's own pattern of TrainingJobName."""
    import botocore.session

    api = botocore.session.get_session().get_service_model("sagemaker")
    shape = api.shape_for("TrainingJobName").metadata
    names = {job_name("a/execution/abc123def456", "Step_One-" + "x" * 60, prefix) for _ in range(9)}
    assert len(names) == 9
    assert all(len(name) <= shape["max"] for name in names)
    assert all(part.isalnum() for name in names for part in name.split("-"))
