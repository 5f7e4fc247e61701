"""Markets that ended: what the exchange paid, read and booked, also what happened while we were away."""

from typing import Final

import attrs
import structlog

from mm.domain.numbers import SECOND, Micros
from mm.exchange import endpoints
from mm.exchange.paging import read_all
from mm.exchange.port import Exchange, Page, Settlement
from mm.ledger import Ledger, SettlementRow
from mm.tasks.budget import ReadBudget
from mm.tasks.floor import Floor

log = structlog.get_logger(__name__)

SETTLEMENTS_MARK: Final = "settlements"
OVERLAP: Final = Micros(60 * SECOND)
"""Settlements this much older than the mark are read again."""


@attrs.define(eq=False, kw_only=True)
class SettlementReader:
    """Reads settlements from the stored mark on."""

    exchange: Exchange
    ledger: Ledger
    floor: Floor
    reads: ReadBudget

    async def read(self, *, is_whole: bool = False) -> None:
        """Settle every market of ours that the venue has settled. Raises `ExchangeError`.

        Args:
            is_whole: Read all of them, not only those since the stored mark.
        """
        positions = self.floor.positions
        if not positions.histories and not positions.settled:
            return
        newest = await self.ledger.mark(SETTLEMENTS_MARK)
        since = Micros(newest - OVERLAP) if newest is not None and not is_whole else None

        async def read(cursor: str | None) -> Page[Settlement]:
            await self.reads.take(self.reads.limits.cost(*endpoints.SETTLEMENTS))
            return await self.exchange.settlements_page(since=since, cursor=cursor)

        # A market that was settled twice is settled as the later word says.
        last = {
            row.ticker: row
            for row in sorted(await read_all(read, what="settlements"), key=lambda row: row.settled_at)
        }
        for row in last.values():
            newest = row.settled_at if newest is None else max(newest, row.settled_at, key=int)
            self._settle(row)
        if newest is not None:
            self.ledger.record_mark(SETTLEMENTS_MARK, newest)

    def _settle(self, row: Settlement) -> None:
        if self.floor.positions.settle(row.ticker, row.value, row.settled_at):
            log.info("market settled", market=row.ticker, value=row.value)
            self.floor.update_exposure(row.ticker)
        self.ledger.record_settlement(as_row(row))


def as_row(settlement: Settlement) -> SettlementRow:
    """The ledger's row of it."""
    return SettlementRow(
        ticker=settlement.ticker,
        value=settlement.value,
        settled_at=settlement.settled_at,
        yes_count=settlement.yes_count,
        no_count=settlement.no_count,
        fee=settlement.fee,
    )
