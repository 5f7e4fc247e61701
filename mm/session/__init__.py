"""Assembles everything: the surroundings, the venue, and the nursery tree. No other logic."""

from mm.session.run import RunOptions, run_session
from mm.session.summary import Summary
from mm.session.surroundings import Surroundings, live_surroundings

__all__ = ["RunOptions", "Summary", "Surroundings", "live_surroundings", "run_session"]
