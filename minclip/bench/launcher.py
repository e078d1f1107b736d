"""Starts processes by turns, and says how long each took and how much memory it used at most. Run as a script.

A child's peak memory counts from the size of the process that started it, so this one imports next to nothing. On stdin
it takes {"commands": {name: [word, ...]}, "rounds": n}, on stdout it prints {name: {"seconds": [...], "bytes": [...],
"error": null}}. One that fails is started once, and "error" is the last line that it wrote.
"""

import json
import os
import subprocess
import sys
import time
from typing import Any


def main() -> None:
    given = json.load(sys.stdin)
    found: dict[str, dict[str, Any]] = {}
    for _ in range(given["rounds"]):
        for name, words in given["commands"].items():
            result = found.setdefault(name, {"seconds": [], "bytes": [], "error": None})
            if result["error"] is None:
                measure(words, result)
    json.dump(found, sys.stdout)


def measure(words: list[str], result: dict[str, Any]) -> None:
    """Run a command to its end, and note what it took."""
    start = time.perf_counter()
    child = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert child.stderr is not None
    wrote = child.stderr.read()
    if hasattr(os, "wait4"):  # which Windows has not: seconds alone, there
        _, status, usage = os.wait4(child.pid, 0)
        code = child.returncode = os.waitstatus_to_exitcode(status)
        result["bytes"].append(usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024))
    else:
        code = child.wait()
    result["seconds"].append(time.perf_counter() - start)
    if code:
        lines = wrote.decode(errors="replace").strip().splitlines()
        result["error"] = lines[-1] if lines else f"it ended with code {code}"


if __name__ == "__main__":
    main()
