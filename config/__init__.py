"""Settings, read once by the flow and passed down."""

from config.settings import Settings, load_settings

__all__ = ["Settings", "load_settings"]
