"""`python -m mm.guard`: started by the session, of no use by hand.

SIGINT, SIGHUP and SIGTERM are ignored: it ends by a goodbye, or by the end of the pipe and of the work that follows,
and one of the two always comes with the end of the bot. So a `kill` that a service manager sends to everything at once
leaves the guardian where it is needed most. SIGKILL works; the bot then starts another.
"""

import signal
import sys

for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
    signal.signal(number, signal.SIG_IGN)

from mm.guard.watch import main  # noqa: E402 - signals first: loading takes a while

if __name__ == "__main__":
    sys.exit(main())
