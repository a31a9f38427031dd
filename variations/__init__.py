"""Image variations of a manifest of sources. Nothing in here knows Prefect or reads the environment."""

from variations.errors import InferenceFailed, InferenceTimeout, VariationsError
from variations.reading import open_image, read_dataset

__all__ = ["InferenceFailed", "InferenceTimeout", "VariationsError", "open_image", "read_dataset"]
