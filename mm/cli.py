"""Parse, choose, exit code."""


def run_cli(argv: list[str]) -> int:
    """Run one command and return the process's exit code."""
    raise NotImplementedError(argv)
