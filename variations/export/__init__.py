"""A dataset as shards that hold the images themselves: tars for `webdataset`, or parquet."""

from variations.export.export import Export, Progress, export_dataset, export_key
from variations.export.formats import FORMATS

__all__ = ["FORMATS", "Export", "Progress", "export_dataset", "export_key"]
