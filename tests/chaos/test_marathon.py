"""A run that is killed again and again comes to its end, and its bill is that of one that was not."""

import pytest

from . import scenarios
from .conftest import Furnish
from .marathon import Counts


def test_a_run_killed_at_random_is_paid_once(furnish: Furnish) -> None:
    """As many rows as images, and as many lines on the bill."""
    verdict, died = scenarios.killed_at_random(furnish(images=20), kills=3, seed=1)
    assert died == 3
    assert verdict.is_complete, verdict


def test_dropped_replies_leave_each_image_kept_or_unknown(furnish: Furnish) -> None:
    """Where the API accepts a tenth of the submits without a word, too."""
    verdict, died = scenarios.killed_at_random(furnish(images=20), kills=3, seed=2, dropping=True)
    assert died == 3
    assert verdict.is_sound, verdict
    assert verdict.rows == verdict.images == verdict.kept + verdict.unknown


@pytest.mark.parametrize("wrong", ["accepted_twice", "lost"])
def test_what_is_wrong_is_in_the_table(wrong: str, furnish: Furnish) -> None:
    """A judge that lets everybody go proves nothing: of two datasets of one bucket each image is paid twice."""
    scene = furnish(images=2)
    scene.run()
    if wrong == "accepted_twice":
        scene.run(destination=f"s3://{scene.bucket}/other")
    else:
        scene.lose_metadata()
    counts = Counts.of("judged", scene.judge())
    assert getattr(counts, wrong) == 2
    assert counts.wrong
