"""Loading, checking and running ServerApps."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from fakes.apps import SERVER, write_app
from fakes.runs import GOOD, failing, grid_of, spec, training_device
from flwr.app import Context, RecordDict

from edge.protocol.messages import Command
from edge.protocol.records import Records
from edge.training.app_bundle import AppError
from fl_runtime.run.errors import RunFailed
from fl_runtime.server.apps.app_runner import run_app
from fl_runtime.server.apps.check_app import check, main
from fl_runtime.server.apps.own_rounds import check_options
from fl_runtime.server.apps.server_app import GET_PARAMETERS, server_app_of
from fl_runtime.server.rounds.round_loop import RoundLoop

HOOKED = """
import numpy as np
from flwr.clientapp import ClientApp
app = ClientApp()
def initial():
    return {"w": np.linspace(0, 1, 5, dtype=np.float32), "n": np.array(3, np.int64)}
"""


def run(app, devices: dict = GOOD):
    the_spec = spec(num_rounds=1)
    loop = RoundLoop(the_spec, lambda record, checkpoint: None, lambda: False)
    context = Context(1, 1, {}, RecordDict(), {"num-server-rounds": 1})
    return run_app(server_app_of(app), grid_of(devices, the_spec), context, loop)


def test_an_app_without_a_server_app_gets_fedavg_from_its_initial_arrays(tmp_path) -> None:
    settings = 'initial-arrays = "hooked_app.client_app:initial"'
    app = write_app(tmp_path / "hooked_app", server="", client=HOOKED, settings=settings)
    finished = run(app)
    assert finished.final_round == 1
    assert sorted(finished.result.arrays) == ["n", "w"]


def test_without_initial_arrays_a_clients_get_parameters_is_asked(tmp_path) -> None:
    def device(command: Command, content: Records) -> Records:
        if command.kind == GET_PARAMETERS:
            start = {"0": np.linspace(0, 1, 5, dtype=np.float32)}
            return Records(arrays={"getparametersres.parameters": start})
        arrays = content.arrays["arrays"]
        content.arrays["arrays"] = {"w": arrays["0"]}
        answer = training_device("d0")(command, content)
        if answer.arrays:
            answer.arrays["arrays"] = {"0": answer.arrays["arrays"]["w"]}
        return answer

    app = write_app(tmp_path / "older_app", server="")
    assert list(run(app, dict.fromkeys(GOOD, device)).result.arrays) == ["0"]
    with pytest.raises(RunFailed, match="gave no initial weights"):
        run(app, dict.fromkeys(GOOD, failing("app-error")))


def test_an_app_is_checked_with_its_strategy(tmp_path, capsys) -> None:
    folder = write_app(tmp_path / "checked_app").folder
    check(folder, "FedAdam", {"eta": 0.1})
    assert main([str(folder), "", "{}"]) == 0
    assert main([str(folder), "FedMagic", "{}"]) == 2
    assert "There is no strategy 'FedMagic'" in capsys.readouterr().err
    with pytest.raises(AppError, match="not a Flower app"):
        check(tmp_path, "", {})


OWN_STRATEGY = SERVER.replace(
    "app = ServerApp()",
    """class Mine(FedAvg):
    def __init__(self, momentum: float = 0.5, **more):
        super().__init__(**more)
        self.momentum = momentum

app = ServerApp()""",
).replace("FedAvg().start", "Mine().start")


@pytest.mark.parametrize(
    ("name", "server", "key", "message"),
    [
        ("stock", SERVER, "fraction_trian", "FedAvg has no parameter .*mean 'fraction_train'"),
        ("none", "", "eta", "FedAvg has no parameter 'eta'"),
        ("own", OWN_STRATEGY, "momentun", "Mine has no parameter .*mean 'momentum'"),
    ],
)
def test_a_misspelt_parameter_of_the_apps_own_strategy_is_refused_before_the_run(
    tmp_path, name: str, server: str, key: str, message: str
) -> None:
    folder = write_app(tmp_path / f"{name}_strategy", server=server).folder
    with pytest.raises(RunFailed, match=message):
        check(folder, "", {key: 0.5})
    check(folder, "", {"fraction_train": 0.5})  # Mine passes it on to FedAvg
    if name == "own":
        check(folder, "", {"momentum": 0.5})


def test_federation_settings_that_do_not_apply_are_named(tmp_path) -> None:
    folder = write_app(tmp_path / "federated_app").folder
    assert check(folder, "", {}).notices == []
    project = folder / "pyproject.toml"
    project.write_text(
        project.read_text()
        + '\n[tool.flwr.federations]\ndefault = "local"\n'
        + "[tool.flwr.federations.local]\noptions.num-supernodes = 10\n"
    )
    (notice,) = check(folder, "", {}).notices
    assert "local.options.num-supernodes = 10" in notice
    assert "--devices" in notice


def test_the_check_is_a_program_of_its_own(tmp_path) -> None:
    folder = write_app(tmp_path / "broken_app", client="import nothing_of_this_name").folder
    module = "fl_runtime.server.apps.check_app"
    done = subprocess.run(
        [sys.executable, "-m", module, str(folder), "", "{}"], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "nothing_of_this_name" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "changes",
    [
        {"strategy": "FedAdam"},
        {"strategy_params": {"eta": 1.0}},
        {"resume_from": "run-0"},
        {"selection": "random"},
        {"quorum": 2},
        {"quorum_fraction": 0.5},
    ],
)
def test_a_server_fn_app_cannot_have_the_options_of_our_round_loop(changes: dict) -> None:
    what = "The app's server_fn brings its own strategy and rounds"
    check_options(spec(), "server-fn", what)
    with pytest.raises(RunFailed, match="brings its own strategy and rounds"):
        check_options(spec(**changes), "server-fn", what)
