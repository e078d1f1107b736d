"""The command `minclip`, also as `python -m minclip`."""

import sys


def main() -> int:
    """Run the command line; Ctrl-C while it is still being imported ends it as quietly as later on."""
    try:
        from minclip.commands import cli

        return cli.main()
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
