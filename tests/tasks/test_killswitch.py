"""The kill switch: a file that comes and goes."""

from collections.abc import Callable
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from mm.tasks.killswitch import FILE_NAME, KillSwitch


async def inline(work: Callable[[], str], /) -> str:
    return work()


async def test_it_is_known_before_the_first_quote(autojump_clock: MockClock, tmp_path: Path) -> None:
    """`started` comes after the first look, with the reason told."""
    (tmp_path / FILE_NAME).touch()
    said: list[str] = []
    async with trio.open_nursery() as nursery:
        await nursery.start(KillSwitch(folder=tmp_path, runner=inline, on_change=said.append).run)
        assert said == [f"the file {FILE_NAME} is in {tmp_path}"]
        nursery.cancel_scope.cancel()


async def test_changes_are_told_once_and_within_a_second(autojump_clock: MockClock, tmp_path: Path) -> None:
    """On and off again, each said once however long it lasts."""
    said: list[bool] = []
    switch = KillSwitch(folder=tmp_path, runner=inline, on_change=lambda why: said.append(bool(why)))
    async with trio.open_nursery() as nursery:
        await nursery.start(switch.run)
        await trio.sleep(5)
        assert said == []
        (tmp_path / FILE_NAME).touch()
        await trio.sleep(1.1)
        assert said == [True]
        await trio.sleep(5)
        (tmp_path / FILE_NAME).unlink()
        await trio.sleep(1.1)
        assert said == [True, False]
        nursery.cancel_scope.cancel()


async def test_who_cannot_look_does_not_quote(
    autojump_clock: MockClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder that cannot be read counts as switched off, and says why."""

    def broken(self: Path) -> bool:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "exists", broken)
    said: list[str] = []
    async with trio.open_nursery() as nursery:
        await nursery.start(KillSwitch(folder=tmp_path, runner=inline, on_change=said.append).run)
        nursery.cancel_scope.cancel()
    assert "Permission denied" in said[0]
