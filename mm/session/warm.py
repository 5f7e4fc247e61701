"""What is done once, when everything has been loaded and the first quotes stand: the garbage collector is calmed.

A full collection looks at every container of the process, some 40,000 after the imports alone, and stops the loop for
5 to 30 ms whenever it likes. What is there by now stays for good, so it is taken out of the collector's sight; and as
the hot path makes next to no cycles, the young are looked at less often.
"""

import gc
from typing import Final

YOUNG: Final = 20_000
"""Containers made before the youngest are looked through: about half a second of a busy feed."""
OLDER: Final = (20, 20)


def freeze_memory() -> None:
    """Collect once, then take what is left out of the collector's sight. For a process that trades until it ends."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG, *OLDER)
