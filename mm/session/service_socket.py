"""The socket of the service manager, from the environment that it gave us (`NOTIFY_SOCKET`, `WATCHDOG_USEC`)."""

import os
import socket
import time
from collections.abc import MutableMapping

from mm.tasks.service import ServiceManager


def service_manager(environ: MutableMapping[str, str]) -> ServiceManager | None:
    """Whom to notify; None when nobody asked for it. Takes the names out of `environ`: our children are not the service.

    A manager that does not read is not waited for: what its socket does not take is dropped.
    """
    address = environ.pop("NOTIFY_SOCKET", "")
    usec, pid = environ.pop("WATCHDOG_USEC", ""), environ.pop("WATCHDOG_PID", "")
    if not address.startswith(("/", "@")):
        return None
    if address.startswith("@"):
        address = "\0" + address[1:]
    channel = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
    channel.setblocking(False)

    def send(datagram: bytes) -> None:
        try:
            channel.sendto(datagram, address)
        except OSError:
            return  # gone or full: whoever wants to know us alive will ask by killing

    is_watched = usec.isdigit() and int(usec) > 0 and pid in ("", str(os.getpid()))
    return ServiceManager(
        send=send,
        watchdog_s=int(usec) / 1e6 if is_watched else None,
        monotonic=lambda: time.monotonic_ns() // 1_000,
    )
