"""Strategies: what to quote in one market, as plug-ins, and the blocks they are made of.

| module | holds |
| --- | --- |
| `view` | what a strategy sees, and the type of its answer |
| `base` | the protocols `Strategy` and `FairValue` |
| `signals` | what a market maker remembers of its market for strategies that need it |
| `blocks` | pure building blocks: micro-price, break-even, skew, queue value, ladder, variation |
| `fair` | fair-value sources |
| `hybrid`, `slow_wide_small`, `avellaneda_stoikov`, `join` | the strategies |
| `registry` | names, parameters from text, which market gets which strategy |

Not here: limits over all markets, guards, the replace rule, orders. They stand around every strategy.
"""
