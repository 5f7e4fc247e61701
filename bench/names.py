"""The markets of the bench, by name."""


def tickers(count: int) -> list[str]:
    """So many market tickers."""
    return [f"KXNHLGAME-26DEC01G{n:04d}-A{n:04d}" for n in range(count)]
