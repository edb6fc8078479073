"""`python -m bwpool`, and the entry point of the `bwpool` command.

Every converter runs this module's top level again, so it imports nothing there.
"""


def main() -> None:
    """Run the command line."""
    from bwpool.cli.process import end_on_signals, open_standard_files

    # The imports that follow take long enough to be interrupted.
    end_on_signals()
    open_standard_files()
    from bwpool.cli.app import run_command_line

    run_command_line()


if __name__ == "__main__":
    main()
