"""Research: recorded markets as columns, the live engine in a plain loop over them, and honest reports.

Above the session in the order of layers, and imported by no part of the bot. What stands here reads files and writes
reports; decisions are `mm.engine`'s, order handling is `mm.tasks`', the queue model is paper's.
"""
