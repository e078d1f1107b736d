"""Pictures in Debian's packages: fetched by apt-get, pinned by digest, unpacked by dpkg-deb."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from minclip_torch.training.miniatures.packages import PicturesError, obtain


@dataclass(frozen=True)
class Package:
    """A package for all architectures. sha256: of its .deb; inside: the folder in it that holds the pictures."""

    name: str
    version: str
    sha256: str
    inside: Path

    def fetch(self, folder: Path) -> Path:
        """The .deb in `folder`, downloaded unless it is there. Raises PicturesError where it cannot be had."""
        archive = folder / f"{self.name}_{self.version.replace(':', '%3a')}_all.deb"
        pinned = f"{self.name}={self.version}"
        return obtain(archive, f"{self.name} {self.version}", self.sha256, "apt-get", "download", pinned)

    @contextlib.contextmanager
    def opened(self, path: Path) -> Iterator[Path]:
        """The folder with the pictures: `path` itself, or, where that is a .deb, unpacked as long as the context lasts.

        Raises PicturesError where `path` is neither.
        """
        if path.is_dir():
            yield path
            return
        if not path.is_file():
            raise PicturesError(f"{path} is not there: name {self.name}'s .deb, or its folder {self.inside}")
        unpack = shutil.which("dpkg-deb")
        if unpack is None:
            raise PicturesError(f"dpkg-deb is not installed: unpack {path} and name its folder {self.inside}")
        with tempfile.TemporaryDirectory() as scratch:
            done = subprocess.run([unpack, "-x", path, scratch], capture_output=True, text=True, check=False)
            if done.returncode:
                why = " ".join(done.stderr.split()) or f"dpkg-deb ended with {done.returncode}"
                raise PicturesError(f"{path} cannot be unpacked ({why:.200}): delete it and run again")
            yield Path(scratch) / self.inside
