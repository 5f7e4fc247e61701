"""The ledger: fills, orders, groups, marks, settlements in SQLite. One writer, one account at a time."""

from mm.ledger.ledger import Ledger, LedgerStatistics, Runner, open_ledger
from mm.ledger.lock import DataFolderInUse, lock_data_folder
from mm.ledger.rows import (
    AlertRow,
    ArchivedRow,
    FillKind,
    FillRow,
    GroupRow,
    OrderKind,
    OrderRow,
    PositionRow,
    SessionRow,
    SettlementRow,
    Totals,
    TriggerRow,
)

__all__ = [
    "AlertRow",
    "ArchivedRow",
    "DataFolderInUse",
    "FillKind",
    "FillRow",
    "GroupRow",
    "Ledger",
    "LedgerStatistics",
    "OrderKind",
    "OrderRow",
    "PositionRow",
    "Runner",
    "SessionRow",
    "SettlementRow",
    "Totals",
    "TriggerRow",
    "lock_data_folder",
    "open_ledger",
]
