"""The guardian: a small process that takes the bot's orders off the exchange when the bot dies or freezes.

`mm guard` is started by the session (see `mm.tasks.guardian`) and told everything over a pipe. It knows one
session's prefix and groups and nothing more. It is kept light on purpose (no trio, no httpx, no settings): it has to
fit beside a bot that ran out of memory, and to be loaded completely before anything goes wrong.
"""
