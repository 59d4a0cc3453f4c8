"""A device's disk as a file: an ext4 image whose power can be cut.

What a device has not synced lies in the kernel's memory, and the image's file does not have it. So
a copy of the file is what a disk holds after a cut at that moment, and mounting the copy does what
a device's start does: ext4 replays its journal.
"""

from __future__ import annotations

import ctypes
import filecmp
import os
import shutil
import time
from pathlib import Path

from pipelines.chaos.mounts import command

IMAGE_BYTES = 48 * 2**20
BUSY_SECONDS = 10.0


class ImageDisk:
    """A folder on an ext4 image of its own."""

    def __init__(self, image: Path, folder: Path) -> None:
        """``folder`` must be empty; what it gets is in ``image`` from :meth:`mount` on."""
        self._image = image
        self._folder = folder

    def make(self) -> str:
        """Make the image and mount it. Returns why that failed; empty when it did not."""
        self._folder.mkdir(parents=True, exist_ok=True)
        with self._image.open("wb") as file:
            file.truncate(IMAGE_BYTES)
        return command("mkfs.ext4", "-q", "-F", str(self._image)) or self.mount()

    def mount(self) -> str:
        """Mount the image; returns why not."""
        return command("mount", "-o", "loop", str(self._image), str(self._folder))

    def sync(self) -> None:
        """Write down all that the folder holds."""
        descriptor = os.open(self._folder, os.O_RDONLY)
        try:
            ctypes.CDLL(None).syncfs(descriptor)
        finally:
            os.close(descriptor)

    def cut_power(self) -> str:
        """Put the folder, which nobody uses any more, into the state in which a cut at this moment
        leaves it. Returns why that failed.
        """
        left = self.copy()
        failed = self.unmount()
        if failed:
            return failed
        left.replace(self._image)
        return self.mount()

    def copy(self) -> Path:
        """A copy of the image as the power would leave it. Nobody may be writing to the folder."""
        left = self._image.with_suffix(".left")
        # ext4 itself may be writing its journal while we read: a copy is good when nothing changed.
        while True:
            shutil.copyfile(self._image, left)
            if filecmp.cmp(self._image, left, shallow=False):
                return left

    def unmount(self) -> str:
        """Unmount the image; returns why not. What a killed process had open is closed soon."""
        deadline = time.monotonic() + BUSY_SECONDS
        while refused := command("umount", str(self._folder)):
            if time.monotonic() > deadline:
                return refused
            time.sleep(0.1)
        return ""
