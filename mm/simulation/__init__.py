"""The whole application on a virtual clock: one seed is one world, with its games, traders, faults and crashes.

The same session, adapters, ledger and exchange as in life, without sockets, threads or real time. Nothing of the bot
imports this package. See docs/simulation.md.
"""
