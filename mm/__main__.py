"""`python -m mm`, the same as the `mm` command."""

import importlib
import sys


def main() -> None:
    """Run the command line and leave with its exit code.

    `mm guard` is told apart before the command line is loaded: it has to be small, and deaf to signals at once.
    """
    if sys.argv[1:] == ["guard"]:
        from mm.guard.__main__ import guard

        sys.exit(guard())
    _load_structlog_alone()
    from mm.cli import run_cli

    sys.exit(run_cli(sys.argv[1:]))


def _load_structlog_alone() -> None:
    """Keep structlog from loading what it would only use for colours and for a kind of thread that we have not: 5 MB."""
    absent = [name for name in ("rich", "better_exceptions", "greenlet") if name not in sys.modules]
    sys.modules.update(dict.fromkeys(absent))  # type: ignore[arg-type]  # None: "not installed"
    importlib.import_module("structlog")
    for name in absent:
        del sys.modules[name]


if __name__ == "__main__":
    main()
