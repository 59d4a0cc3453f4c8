"""The tasks' code as Fargate confines it: no root, a read-only file system, and one mount.

Only ``/tmp`` can be written, as the image declares it: a bind mount of a task is root's, mode 0755,
unless its image says otherwise.
https://docs.aws.amazon.com/AmazonECS/latest/developerguide/bind-mounts.html
"""

from __future__ import annotations

import os
import shutil
import site
import subprocess
import sys

import pytest
from support.paths import ROOT
from support.templates import resources

CONFINED = """
set -e
mount -t tmpfs -o mode=755 stage /mnt
mkdir /mnt/python /mnt/packages /mnt/code
mount --bind "$PYTHON_HOME" /mnt/python
mount --bind "$PACKAGES" /mnt/packages
mount --bind "$CODE" /mnt/code
mount -t tmpfs -o "mode=$MODE" scratch /tmp
for place in /mnt/python /mnt/packages /mnt/code /mnt / ; do
    mount -o remount,bind,ro "$place"
done
cd /tmp
exec setpriv --reuid "$TASK_USER" --regid "$TASK_USER" --clear-groups --no-new-privs \
    --bounding-set=-all --inh-caps=-all env -i PATH=/usr/bin:/bin HOME=/tmp \
    LD_LIBRARY_PATH=/mnt/python/lib PYTHONPATH=/mnt/code:/mnt/code/tests:/mnt/packages \
    PYTHONDONTWRITEBYTECODE=1 OMP_NUM_THREADS=1 "/mnt/python/bin/$INTERPRETER" -c "$SCRIPT"
"""
SERVER = """
import errno, os, pathlib
assert os.getuid() != 0
try:
    pathlib.Path('/var/x').touch()
except OSError as error:
    assert error.errno in (errno.EROFS, errno.EACCES)
else:
    raise SystemExit('the root file system can be written')
from compatibility.catalogue import CATALOGUE
from compatibility.our_engine import OurEngine
folder = pathlib.Path('/tmp/run')
for part in ('app', 'ours'):
    (folder / part).mkdir(parents=True)
app = next(app for app in CATALOGUE if app.model).write(folder / 'app')
print(sorted(OurEngine(app, folder / 'ours').run().model), 'model')
"""
ENTRY = "import sys, runpy; sys.argv = ['task']; runpy.run_module('{}', run_name='__main__')"


def confined(script: str, mode: str) -> subprocess.CompletedProcess[str]:
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("mounts need root, and setpriv")
    (container,) = {
        r["Properties"]["ContainerDefinitions"][0]["User"]
        for r in resources("AWS::ECS::TaskDefinition")
    }
    return subprocess.run(
        ["unshare", "--mount", "--propagation", "private", "sh", "-c", CONFINED],
        env={
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "PYTHON_HOME": sys.base_prefix,
            "PACKAGES": site.getsitepackages()[0],
            "CODE": str(ROOT),
            "INTERPRETER": f"python3.{sys.version_info.minor}",
            "TASK_USER": container,
            "MODE": mode,
            "SCRIPT": script,
        },
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.proof
def test_a_run_is_served_where_only_tmp_can_be_written() -> None:
    done = confined(SERVER, "1777")
    assert done.returncode == 0, done.stderr[-2000:]
    assert "model" in done.stdout


@pytest.mark.proof
def test_a_mount_as_fargate_makes_it_without_the_images_word_can_hold_no_run() -> None:
    done = confined(SERVER, "0755")
    assert "PermissionError" in done.stderr


@pytest.mark.proof
@pytest.mark.parametrize("module", ["fl_runtime.server", "fl_runtime.proxy"])
def test_the_entry_points_start_there(module: str) -> None:
    done = confined(ENTRY.format(module), "1777")
    assert done.returncode == 2, done.stderr[-2000:]
    assert "MLEDGEOPS_BUCKET is not set" in done.stderr


def test_the_tasks_have_that_one_mount() -> None:
    for task in resources("AWS::ECS::TaskDefinition"):
        (mount,) = task["Properties"]["ContainerDefinitions"][0]["MountPoints"]
        assert mount["ContainerPath"] == "/tmp"  # a mount in the container
    for image in (ROOT / "pipelines" / "aws" / "images").glob("*.Dockerfile"):
        final = image.read_text().rsplit("\nFROM ", 1)[1]
        assert final.index("chmod 1777 /tmp") < final.index('VOLUME ["/tmp"]')
