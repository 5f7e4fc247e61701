"""Settings: read by python-decouple, checked all at once, handed down as frozen values."""

from mm.settings.kinds import Environment, Secret
from mm.settings.load import Settings, load_settings
from mm.settings.table import SETTINGS

__all__ = ["SETTINGS", "Environment", "Secret", "Settings", "load_settings"]
