"""Apps that cannot run are refused in one sentence before anything starts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.commands import mledgeops

from pipelines.local.cloud import LocalCloud


def bad_app(folder: Path, body: str, toml: str = "") -> str:
    (folder / "app" / "bad").mkdir(parents=True)
    (folder / "app" / "pyproject.toml").write_text(
        toml
        or '[project]\nname = "bad"\n[tool.flwr.app.components]\nclientapp = "bad.client:app"\n'
    )
    (folder / "app" / "bad" / "client.py").write_text(body)
    return str(folder / "app")


@pytest.mark.parametrize(
    ("body", "extra", "text"),
    [
        ("import a_module_that_is_not_there", [], "a_module_that_is_not_there"),
        ("app = 1", [], "not a ClientApp"),
        ("def", [], "SyntaxError"),
        (
            "from flwr.clientapp import ClientApp\napp = ClientApp()",
            ["--strategy", "FedMagic"],
            "no strategy 'FedMagic'",
        ),
        (
            "from flwr.clientapp import ClientApp\napp = ClientApp()",
            ["--strategy", "FedAdam", "--set", "strategy.etta=1"],
            "no parameter 'etta'",
        ),
    ],
)
def test_an_app_that_cannot_run_is_refused_before_anything_starts(
    home: Path, cloud: LocalCloud, tmp_path: Path, body: str, extra: list[str], text: str
) -> None:
    done = mledgeops("run", bad_app(tmp_path, body), *extra, "--json", home=home, check=2)
    assert text in done.stderr
    assert json.loads(done.stdout)["status"] == "Failed"
