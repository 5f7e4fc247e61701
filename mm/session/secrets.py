"""Which texts are secret in a run: they are taken out of everything that is written."""

from mm.session.channels import SECRETS
from mm.settings import Environment, Secret, Settings
from mm.settings.load import read_private_key


def secrets_of(settings: Settings) -> list[str]:
    """Every text that no log line and no incident bundle may hold. Raises `ConfigError` when the key cannot be read."""
    secrets: list[Secret] = [settings[name] for name in SECRETS]
    found = [secret.reveal() for secret in secrets if secret]
    if settings.environment is not Environment.SIM or settings.has_own_urls:
        found.append(read_private_key(settings).reveal())
    return found
