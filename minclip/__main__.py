"""The command `minclip`, also as `python -m minclip`."""

import sys

__all__ = ["main"]


def main() -> int:
    """Run the command line; Ctrl-C while it is still being imported ends it as quietly as later on."""
    try:
        from minclip.commands import cli
    except KeyboardInterrupt:
        return 130
    return cli.main()


if __name__ == "__main__":
    sys.exit(main())
