"""The command `minclip`, also as `python -m minclip`."""

import sys

try:  # what `signal` is made of, in C: importing it runs no Python, in the midst of which Ctrl-C could come
    import _signal as signal  # type: ignore[import-not-found, unused-ignore]
except ImportError:  # a Python made otherwise
    import signal


def main() -> int:
    """Run the command line. Ctrl-C while it is still being imported ends the process at once and says nothing.

    Python's own answer, an exception, would come out of the midst of an import as a traceback.
    """
    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        from minclip.commands import cli
    except KeyboardInterrupt:  # of another handler's
        return 130
    finally:
        if before is signal.default_int_handler:
            signal.signal(signal.SIGINT, before)
    return cli.main()


if __name__ == "__main__":
    sys.exit(main())
