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


def _leave_the_working_folder() -> None:
    """Import nothing more from the folder that `python -m` looks into first.

    It may hold pictures, and modules that somebody put beside them. If bwpool itself
    lies there, it is the user's choice.
    """
    import os
    import sys

    try:
        first = () if sys.flags.safe_path else ("", os.getcwd())  # noqa: PTH109 - the same
    except OSError:
        return  # it has been removed
    ours = os.path.dirname(os.path.dirname(__file__))  # noqa: PTH120 - no import
    if sys.path[0] in first and sys.path[0] != ours:
        del sys.path[0]


if __name__ == "__main__":
    _leave_the_working_folder()
    main()
