"""Alerts by e-mail: the standard library's SMTP client in a thread of its own, so that nothing waits for a mail server.

`smtplib` blocks; no SMTP client runs on trio. The thread is left behind when its sender is cancelled: it ends with the
socket's own timeout.
"""

import smtplib
import ssl
from collections.abc import Callable
from email.message import EmailMessage
from email.utils import formatdate, make_msgid
from typing import Final, final

import attrs

from mm.domain.numbers import SECOND, Micros
from mm.ledger import Runner
from mm.tasks.senders import Message, MessageRefused, NotSent, ReceiverGone

TIMEOUT_S: Final = 10.0
TLS_PORT: Final = 465
SUBJECT_LIMIT: Final = 120


@attrs.frozen(kw_only=True)
class MailServer:
    """Where mail is handed in. Port 465 speaks TLS from the start; any other must offer STARTTLS, save on loopback."""

    host: str
    port: int
    user: str = ""
    password: str = attrs.field(default="", repr=False)
    is_loopback: bool = False


@final
@attrs.define(eq=False, kw_only=True)
class MailSender:
    """Hands messages to one mail server."""

    server: MailServer
    sender: str
    to: tuple[str, ...]
    bot: str
    """Named in the subject."""
    clock: Callable[[], Micros]
    runner: Runner = attrs.field(repr=False)
    """Not the ledger's: a mail server may take its time."""

    async def send(self, message: Message) -> float:
        """See `Sender.send`."""
        mail = self._mail(message)
        try:
            await self.runner(lambda: self._hand_in(mail))
        except smtplib.SMTPAuthenticationError as exc:
            raise ReceiverGone(
                f"the mail server refuses SMTP_USER and SMTP_PASSWORD (code {exc.smtp_code})"
            ) from None
        except (smtplib.SMTPRecipientsRefused, smtplib.SMTPSenderRefused) as exc:
            raise ReceiverGone(
                f"the mail server refuses EMAIL_FROM or EMAIL_TO ({type(exc).__name__})"
            ) from None
        except smtplib.SMTPDataError as exc:
            kind = MessageRefused if exc.smtp_code >= 500 else NotSent
            raise kind(f"the mail server refuses the message (code {exc.smtp_code})") from None
        except (smtplib.SMTPException, OSError) as exc:
            # Only its kind: what a server says may repeat what we sent.
            raise NotSent(f"mail not handed in: {type(exc).__name__}: {_reason(exc)}") from None
        return 0.0

    def _mail(self, message: Message) -> EmailMessage:
        mail = EmailMessage()
        first = message.text.partition("\n")[0]
        subject = f"{self.bot}: {first}"
        mail["Subject"] = "".join(c if c.isprintable() else " " for c in subject)[:SUBJECT_LIMIT]
        mail["From"], mail["To"] = self.sender, ", ".join(self.to)
        mail["Date"] = formatdate(self.clock() / SECOND)
        mail["Message-ID"] = make_msgid(domain=self.sender.rpartition("@")[2] or "localhost")
        mail["Auto-Submitted"] = "auto-generated"
        mail.set_content(message.text + "\n")
        return mail

    def _hand_in(self, mail: EmailMessage) -> None:
        server = self.server
        context = ssl.create_default_context()
        if server.port == TLS_PORT:
            client: smtplib.SMTP = smtplib.SMTP_SSL(
                server.host, server.port, timeout=TIMEOUT_S, context=context
            )
        else:
            client = smtplib.SMTP(server.host, server.port, timeout=TIMEOUT_S)
        with client:
            if server.port != TLS_PORT and not server.is_loopback:
                client.starttls(context=context)
            if server.user:
                client.login(server.user, server.password)
            client.send_message(mail)


def _reason(exc: Exception) -> str:
    return exc.strerror or "" if isinstance(exc, OSError) and exc.strerror else "no details"
