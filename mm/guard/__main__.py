"""`mm guard`: started by the session, of no use by hand.

SIGINT, SIGHUP and SIGTERM are ignored: it ends by a goodbye, or by the end of the pipe and of the work that follows,
and one of the two always comes with the end of the bot. So a `kill` that a service manager sends to everything at once
leaves the guardian where it is needed most. SIGKILL works; the bot then starts another.
"""

import os
import signal
import sys


def guard() -> int:
    """Guard the bot at the other end of stdin and stdout. Gives the exit code; see `mm.guard.watch.Watch.run`."""
    if os.isatty(0):
        os.write(2, b"mm guard: started by `mm run`, which talks to it over a pipe; of no use by hand\n")
        return 1
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    from mm.guard.watch import main  # signals first: loading takes a while

    return main()


if __name__ == "__main__":
    sys.exit(guard())
