"""The command `minclip`, also as `python -m minclip`."""

import signal
import sys


def main() -> int:
    """Run the command line. Ctrl-C while it is still being imported ends the process at once and says nothing.

    Python's own answer, an exception, comes out of the midst of an import as a traceback.
    """
    try:
        default = signal.getsignal(signal.SIGINT) is signal.default_int_handler
        if default:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
        from minclip.commands import cli

        if default:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        return cli.main()
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
