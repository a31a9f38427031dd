"""What a run is asked for: the places that are refused, by the name of their field."""

import pytest

from variations.errors import BadInput
from variations.job import Job


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("s3://", "s3://: no bucket, write s3://bucket/prefix"),
        ("gs://b/x", "gs://b/x: gs:// is not supported here"),
        ("s3://b/daily ", "'s3://b/daily ' begins or ends with a blank"),
        ("   ", "'   ' begins or ends with a blank"),
    ],
)
def test_a_place_that_is_none_is_refused_by_its_field(place: str, said: str) -> None:
    """A person at the form sees which one is meant."""
    with pytest.raises(BadInput) as source:
        Job(place, "s3://b/dataset")
    assert str(source.value).startswith(f"source: {said}")
    with pytest.raises(BadInput) as destination:
        Job("s3://b/manifest.csv", place)
    assert str(destination.value).startswith(f"destination: {said}")
