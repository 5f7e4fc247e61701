"""The errors of the house. The split that matters at 3 a.m. is *did it happen?*: no, not yet, don't know.

Domain errors live here; those of a venue are in `mm.exchange.port`.
"""


class MMError(Exception):
    """Base of everything that mm raises on purpose."""


class ConfigError(MMError):
    """Bad settings, found before anything runs. Holds every problem, not the first one."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class InvariantError(MMError):
    """A bug or corrupt data: what cannot be has happened. Trading stops everywhere."""


class RiskRefused(MMError):
    """Our own veto on an order. Carries the check and its numbers in the message."""


class BookOutOfSync(MMError):
    """A delta cannot belong to the book we hold; the book must be read anew before it is used."""


class LedgerError(MMError):
    """The ledger cannot be written or read (disk full, locked, damaged). Trading stops."""
