"""What every contestant finds: a bucket with the sample photos and their manifest."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import httpx

from benches.servers import S3Server
from variations.sandbox import sample_photos

BUCKET: Final = "bench"
PUBLIC: Final = {"x-amz-acl": "public-read"}


@dataclass(frozen=True, slots=True)
class Ground:
    """A bucket with photos and their manifest.

    Attributes:
        s3: the server that it is on.
        photos: their http URLs. They carry no signature, so that the sandbox fetches and decodes each but once a
            minute: what that costs is not what is measured.
        manifest: its URI.
    """

    s3: S3Server
    photos: Sequence[str]
    manifest: str

    def destination(self, name: str) -> str:
        """Return where a contestant's dataset grows."""
        return f"s3://{BUCKET}/datasets/{name}"


def furnish(s3: S3Server) -> Ground:
    """Put the photos and a manifest of them into a new bucket."""
    root = s3.make_bucket(BUCKET)
    photos = []
    for photo in sample_photos():
        url = f"{s3.url}/{BUCKET}/photos/{photo.name}"
        httpx.put(url, content=photo.read_bytes(), headers=PUBLIC).raise_for_status()
        photos.append(url)
    httpx.put(f"{s3.url}/{BUCKET}/manifest.txt", content="\n".join(photos).encode()).raise_for_status()
    return Ground(s3, photos, f"{root}/manifest.txt")
