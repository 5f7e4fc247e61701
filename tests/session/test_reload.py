"""A reload: what may change now changes for what already quotes, the rest is named, a bad setting changes nothing."""

from pathlib import Path

import pytest
import trio

from bot_rig import Rig, eventually, is_quoting
from mm.domain.numbers import Count, Money
from mm.session.reload import Reloader, compare, told
from mm.session.trading import Trading
from mm.settings import SETTINGS, Settings, load_settings

HIDDEN = "https://discord.test/api/webhooks/1/s3cr3t-t0ken"


def read(**values: str) -> Settings:
    return load_settings(values, environ={}, dotenv=Path("/nonexistent/.env"))


def test_what_differs_is_sorted_into_now_and_after_a_restart() -> None:
    """By name, with both texts; a secret only by its name."""
    running = read(SIZE_PER_FILL="10", DISABLE_NEW_QUOTES="false")
    changes = compare(
        running, read(SIZE_PER_FILL="5", DISABLE_NEW_QUOTES="true", SIM_SPEED="2", DISCORD_WEBHOOK_URL=HIDDEN)
    )

    assert changes.applied == (
        "DISABLE_NEW_QUOTES false -> true",
        "SIZE_PER_FILL 10 -> 5",
    )
    assert changes.kept == ("DISCORD_WEBHOOK_URL (not shown)", "SIM_SPEED 10 -> 2")
    assert changes.settings.strategy.size_per_fill == 500
    assert changes.settings["DISABLE_NEW_QUOTES"] is True
    assert changes.settings["SIM_SPEED"] == running["SIM_SPEED"]
    assert "s3cr3t" not in told(changes, is_same_venue=True)
    assert compare(changes.settings, changes.settings).applied == ()


def test_another_environment_applies_nothing() -> None:
    """Its numbers were meant for another venue."""
    there = read(KALSHI_ENV="demo", KALSHI_API_KEY="k", KALSHI_API_SECRET="s", SIZE_PER_FILL="5")
    changes = compare(read(), there)

    assert changes.applied == ()
    assert any("KALSHI_ENV" in text for text in changes.kept)
    assert "needs a restart" in told(changes, is_same_venue=False)


def test_nothing_that_was_decided_at_the_start_is_marked_as_safe() -> None:
    """Whoever marks another setting as safe makes sure that it is looked at anew, and changes this list."""
    assert {name for name, row in SETTINGS.items() if row.is_live} == {
        "DISABLE_NEW_QUOTES",
        "ALERT_ROUTES",
        "DAILY_SUMMARY",
    }


@pytest.mark.real
async def test_a_running_bot_goes_by_the_new_numbers(rig: Rig) -> None:
    """Size and limits of the next quotes, the switch, the loss limit; then a bad file, and nothing changes."""
    wanted: dict[str, str] = {}

    def load() -> Settings:
        return rig.settings(**wanted)

    async def script(trading: Trading) -> None:
        await eventually(lambda: is_quoting(trading), "quoting")
        reloader = Reloader(
            read=load, runner=trading.surroundings.runner, trading=lambda: trading, alerts=trading.alerts
        )
        wanted.update(
            SIZE_PER_FILL="3", MAX_GLOBAL_INVENTORY="123", DAILY_LOSS_LIMIT="7", DISABLE_NEW_QUOTES="true"
        )
        await reloader.reload()
        assert trading.is_new_quoting_off == "DISABLE_NEW_QUOTES is set"
        await eventually(
            lambda: not any(order.order_id for order in trading.desk.live.values()), "quotes are pulled"
        )
        wanted["DISABLE_NEW_QUOTES"] = "false"
        await reloader.reload()
        await eventually(lambda: is_quoting(trading), "quoting again")
        assert {order.count for order in trading.desk.live.values()} <= {Count(300)}
        assert trading.floor.gross.limit == Count(12_300)
        assert trading.fence.contracts_limit == 123
        assert trading.monitor.daily_loss.limit == Money(7_000_000)
        before = trading.settings
        wanted["SIZE_PER_FILL"] = "-4"
        await reloader.reload()
        assert trading.settings is before
        assert all(maker.parameters.size_per_fill == 300 for maker in trading.floor.makers.values())
        said = [alert.text for alert in trading.alerts.recent]
        assert any("the old ones stay" in text and "SIZE_PER_FILL" in text for text in said)

    with trio.fail_after(40):
        summary = await rig.run_bot(script=script)
    assert summary.exit_code == 0, summary.reason
