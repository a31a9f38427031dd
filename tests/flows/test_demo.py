"""The demo, as a new user runs it: a fresh home, no server, no key."""

import os
import re
import subprocess
import sys
from pathlib import Path

from PIL import Image

from variations import read_dataset
from variations.sandbox import sample_photos


def test_the_demo_leaves_a_dataset_to_look_at(tmp_path: Path) -> None:
    """Two variations of each photo, kept and paid once, lie in a folder with their metadata."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    home = tmp_path / "home"
    home.mkdir()
    env["HOME"] = str(home)
    done = subprocess.run(
        [sys.executable, "-m", "flows", "demo"],
        env=env,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    images = 2 * len(sample_photos())
    assert images >= 16
    assert re.search(rf"kept\s+{images}\b", done.stdout)
    assert f"bill: {images} requests accepted" in done.stderr
    frame = read_dataset(str(tmp_path / "demo-output"))
    assert len(frame) == images
    for name in frame["file_name"]:
        with Image.open(tmp_path / "demo-output" / name) as image:
            image.load()
            assert image.size == (1024, 1024)
    # Two seeds of one photo are two pictures.
    assert frame["sha256"].nunique() == images
    assert not [line for line in done.stderr.splitlines() if "ERROR" in line or "Traceback" in line]
