"""Live on prod a strategy must have shown something, or be accepted by name; it is capped, and its user is told."""

import json
from pathlib import Path

import pytest

from mm.domain.errors import ConfigError
from mm.settings import Settings, load_settings
from mm.settings.proof import accepted_or_refused, evaluation_path, fingerprint, warnings

KEYS = {"KALSHI_API_KEY": "k", "KALSHI_API_SECRET": "s", "DAILY_LOSS_LIMIT": "50"}


def on_prod(folder: Path, **more: str) -> Settings:
    """Live settings on prod."""
    environ = {
        "KALSHI_ENV": "prod",
        "LIVE_TRADING_ENABLED": "true",
        "MM_DATA_DIR": str(folder),
        **KEYS,
        **more,
    }
    return load_settings(environ=environ, dotenv=folder / "none.env")


def test_an_unproven_strategy_is_refused_by_name(tmp_path: Path) -> None:
    """The message names the strategy, why, and the setting that accepts it; all are told at once."""
    settings = on_prod(tmp_path, STRATEGY="hybrid,KXNBAGAME:join")
    with pytest.raises(ConfigError) as caught:
        accepted_or_refused(settings, on_paper=False)
    assert len(caught.value.problems) == 2
    assert "I_ACCEPT_UNPROVEN_STRATEGY=hybrid" in caught.value.problems[0]
    assert "mm evaluate join" in caught.value.problems[1]


def test_on_paper_and_elsewhere_nothing_is_asked(tmp_path: Path) -> None:
    """Paper, and every environment but prod, take any strategy as it is."""
    settings = on_prod(tmp_path)
    assert accepted_or_refused(settings, on_paper=True) is settings
    sim = load_settings(environ={"MM_DATA_DIR": str(tmp_path)}, dotenv=tmp_path / "none.env")
    assert accepted_or_refused(sim, on_paper=False) is sim
    assert warnings(sim, on_paper=False) == []


def test_an_accepted_one_is_capped_and_told(tmp_path: Path) -> None:
    """Five contracts a quote, ten in a market, unless the user says otherwise; never more than the user's own."""
    settings = on_prod(tmp_path, I_ACCEPT_UNPROVEN_STRATEGY="hybrid", SIZE_PER_FILL="10")
    found = accepted_or_refused(settings, on_paper=False).strategy
    assert (found.size_per_fill, found.max_inventory_per_market) == (500, 1_000)
    assert "hybrid trades live and is not proven" in warnings(settings, on_paper=False)[0]
    smaller = on_prod(tmp_path, I_ACCEPT_UNPROVEN_STRATEGY="hybrid", SIZE_PER_FILL="2")
    assert accepted_or_refused(smaller, on_paper=False).strategy.size_per_fill == 200
    free = on_prod(tmp_path, I_ACCEPT_UNPROVEN_STRATEGY="hybrid", UNPROVEN_SIZE_CAP="")
    assert accepted_or_refused(free, on_paper=False) is free


def test_a_strategy_that_passed_all_three_gates_is_not_asked(tmp_path: Path) -> None:
    """With its own parameters only: other parameters are another strategy."""
    settings = on_prod(tmp_path)
    strategy = settings.strategies.default
    path = evaluation_path(tmp_path, strategy)
    path.parent.mkdir()
    proof = {
        "fingerprint": fingerprint(strategy, settings.strategy),
        "gates": {"0": True, "1": True, "2": True},
    }
    path.write_text(json.dumps(proof))
    assert accepted_or_refused(settings, on_paper=False) is settings
    with pytest.raises(ConfigError, match="other parameters"):
        accepted_or_refused(on_prod(tmp_path, BASE_SPREAD="0.02"), on_paper=False)
    path.write_text(json.dumps(proof | {"gates": {"0": True, "1": False, "2": None}}))
    with pytest.raises(ConfigError, match="it failed gate 1"):
        accepted_or_refused(settings, on_paper=False)


def test_a_strategy_that_there_is_not_is_told_before_anything_connects(tmp_path: Path) -> None:
    """With the names that are known, and where else names may come from."""
    with pytest.raises(ConfigError, match="no such name; known: hybrid, slow-wide-small"):
        load_settings(environ={"STRATEGY": "hybird"}, dotenv=tmp_path / "none.env")
    with pytest.raises(ConfigError, match="No module named 'nowhere'"):
        load_settings(environ={"STRATEGY": "nowhere.Mine"}, dotenv=tmp_path / "none.env")
    with pytest.raises(ConfigError, match="not a subclass"):
        load_settings(environ={"STRATEGY": "pathlib.Path"}, dotenv=tmp_path / "none.env")
    found = load_settings(
        environ={"STRATEGY": "mm.engine.strategies.join.Join", "STRATEGY_PARAMETERS": ""},
        dotenv=tmp_path / "none.env",
    )
    assert found.strategies.default.name == "join"
