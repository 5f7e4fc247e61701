"""The pure core of the embedded exchange: matching, money, groups, lifecycle. Sans-IO: time comes in as an argument.

`exchange.ExchangeCore` is the door; `model` holds the values that go in and out, `events` what it emits, `rules` the
switches for behaviour that is not established, and the refusals. No clock, no randomness, no IO in here.
"""
