"""Whole lives with faults and crashes, journalled: every decision can be made again, and the journal changes none."""

import orjson
import pytest

from mm.engine.decisions.journal import DecisionJournal
from mm.engine.decisions.lines import Encoder
from mm.engine.decisions.player import Player
from mm.session.trading import Trading
from mm.simulation.run import run_seed


@pytest.mark.parametrize("seed", [5])
def test_a_simulated_life_decides_the_same_again(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lost answers, stale reads, pauses, a crash: the journals of all the seed's lives replay without a difference.

    The trace of the world with journals is that without them, step by step.
    """
    plain = run_seed(seed, False)
    journals: list[DecisionJournal] = []
    wire = Trading.__attrs_post_init__

    def journalled(self: Trading) -> None:
        self.decisions = DecisionJournal()
        journals.append(self.decisions)
        wire(self)

    monkeypatch.setattr(Trading, "__attrs_post_init__", journalled)
    noted = run_seed(seed, False)

    assert noted.hash == plain.hash
    assert len(journals) > 1
    decisions = commands = 0
    for journal in journals:
        player, encode = Player(), Encoder()
        for entry in journal.entries:
            player.play(orjson.loads(orjson.dumps(encode(entry))))
        assert (player.differences, journal.lost, journal.problem) == ([], 0, "")
        decisions, commands = decisions + player.decisions, commands + player.commands
    assert decisions > 100
    assert commands > 50
