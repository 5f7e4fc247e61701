"""The books in SQLite: fills, orders, groups, marks, settlements. One writer; the ledger is the truth."""
