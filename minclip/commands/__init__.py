"""The command line, a file a command: `add_arguments(parser)` says what it takes, `run(options)` returns its exit code.

A new command is such a file and a line in `cli.COMMANDS`. What commands share is in `common`.
"""
