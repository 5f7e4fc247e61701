"""`python -m mm`, the same as the `mm` command."""

import sys


def main() -> None:
    """Run the command line and leave with its exit code.

    `mm guard` is told apart before the command line is loaded: it has to be small, and deaf to signals at once.
    """
    if sys.argv[1:] == ["guard"]:
        from mm.guard.__main__ import guard

        sys.exit(guard())
    from mm.cli import run_cli

    sys.exit(run_cli(sys.argv[1:]))


if __name__ == "__main__":
    main()
