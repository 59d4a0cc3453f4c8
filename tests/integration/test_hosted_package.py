"""AWS's own toolkit, which its PyTorch container runs, loads the registered package and answers."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from fakes.apps import write_app
from fakes.runs import spec

from fl_runtime.server.model.artifact import final_model, model_tar

TOOLKIT = ("sagemaker-pytorch-inference==2.0.25", "sagemaker-inference==1.10.1")
CODE = """
import numpy as np
def predict(arrays, inputs):
    return np.asarray(inputs, np.float32) @ arrays["w"] + arrays["b"]
"""
CONTAINER = """
import json, sys
from sagemaker_pytorch_serving_container.handler_service import HandlerService

class Request:
    def __init__(self, kind):
        self.system_properties = {"model_dir": sys.argv[1]}
        self.request_processor, self.kind, self.status = [self], kind, 200
    def get_request_properties(self):
        return {"Content-Type": self.kind, "Accept": "application/json"}
    def set_response_content_type(self, index, kind):
        pass
    def set_response_status(self, code, phrase):
        self.status = code

service = HandlerService()
service.initialize(Request("application/json"))
for kind, body in json.loads(sys.argv[2]):
    request = Request(kind)
    (answer,) = service.handle([{"body": body.encode()}], request)
    print(json.dumps([request.status, json.loads(answer)]))
"""


@pytest.mark.proof
def test_the_toolkit_loads_the_package_and_answers(tmp_path: Path) -> None:
    toolkit = tmp_path / "toolkit"
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"),
            *("--no-deps", "--target", str(toolkit), *TOOLKIT),
        ],
        check=True,
        capture_output=True,
        timeout=240,
    )
    settings = 'predict = "hosted_there.client_app:predict"'
    app = write_app(tmp_path / "hosted_there", client=CODE, settings=settings)
    arrays = {"w": np.array([[2.0], [3.0]], np.float32), "b": np.array(0.5)}
    package = model_tar(final_model(arrays, "loss", "minimize", 0.1), spec(), app.bundle(), app)
    with tarfile.open(fileobj=io.BytesIO(package)) as archive:
        archive.extractall(tmp_path / "model", filter="data")
    table = {"columns": ["wind", "heat"], "data": [[1.0, 0.0], [2.0, -1.0]]}
    requests = [
        ("application/json", json.dumps({"dataframe_split": table})),
        ("text/csv", "wind,heat\n1.0,0.0\n2.0,-1.0\n"),
    ]
    done = subprocess.run(
        [sys.executable, "-c", CONTAINER, str(tmp_path / "model"), json.dumps(requests)],
        cwd=tmp_path,
        env={
            "PATH": "/usr/bin:/bin",
            "PYTHONPATH": f"{tmp_path / 'model' / 'code'}:{toolkit}",
            "SAGEMAKER_PROGRAM": "inference.py",
            "SAGEMAKER_BASE_DIR": str(tmp_path),
        },
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert answers == [[200, {"predictions": [[2.5], [1.5]]}]] * 2
