"""The pictures below a folder, as every command finds them."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable

from minclip.images.opening import image_suffixes


def pictures_below(
    folder: str,
    on_error: Callable[[OSError], None],
    on_link: Callable[[str], None] = lambda path: None,
    also: tuple[str, ...] = (),
) -> list[str]:
    """The paths of the picture files below a folder, and of files with an ending of `also`; sorted.

    on_error: is given the error of each folder that cannot be read. on_link: is given each link to a folder; they are
    not followed, since they may lead in circles. Pipes and devices are left out, at which a reader could wait for ever;
    a broken link is not: whoever opens it reports it.
    """
    endings = {*image_suffixes(), *also}
    found: list[str] = []
    for parent, folders, files in os.walk(folder, onerror=on_error):
        for path in (os.path.join(parent, name) for name in folders):
            if os.path.islink(path):
                on_link(path)
        paths = [os.path.join(parent, name) for name in files if os.path.splitext(name)[1].lower() in endings]
        found += [path for path in paths if _may_be_opened(path)]
    return sorted(found)


def _may_be_opened(path: str) -> bool:
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except OSError:
        return True
