"""Manifests: lists of source images in parquet, CSV, JSON lines or text (each also gzipped), or a prefix of images.

Columns by their names, without regard to case: the URI is `url`, `image_url`, `uri`, `image` or `redux_image`, the
first of these that holds text; the id is `id` or `source_id`; beside an id, `version` makes a new identity; those
called like an API parameter override it for the row; every other column is a label.

A prefix may hold several manifest files, or images, not both. Names that begin with `_` or `.` are passed over, and
beside images so are .txt, .lst and .json files, which are captions and sidecars there. A path in a manifest is
relative to the manifest's own folder, in S3 too; local files may be named by local manifests only.

Rows are numbered from 1 in their own file: data rows in parquet and CSV, lines in JSON lines and text.
"""

from variations.manifest.fetch import Manifest, fetch_manifest

__all__ = ["Manifest", "fetch_manifest"]
