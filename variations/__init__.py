"""Image variations of a manifest of sources. Nothing in here knows Prefect or reads the environment."""

from typing import TYPE_CHECKING, Any

from variations.errors import InferenceFailed, InferenceTimeout, VariationsError

if TYPE_CHECKING:
    from variations.reading import open_image, read_dataset

__all__ = ["InferenceFailed", "InferenceTimeout", "VariationsError", "open_image", "read_dataset"]


def __getattr__(name: str) -> Any:
    """Import what needs pandas when it is asked for: it takes most of a second, and no run needs it."""
    if name in {"open_image", "read_dataset"}:
        from variations import reading  # noqa: PLC0415

        return getattr(reading, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
