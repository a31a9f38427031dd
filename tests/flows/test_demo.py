"""The demo, as a new user runs it: a fresh home, no server, no key."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from flows.commands.demo import MARKER, claim, demo
from variations import read_dataset
from variations.errors import BadInput
from variations.sandbox import sample_photos


def test_the_demo_leaves_a_dataset_to_look_at(tmp_path: Path) -> None:
    """Two variations of each photo, kept and paid once, lie in a folder with their metadata.

    What the user has set for other runs, in the environment and in files, does not reach it; a former demo is replaced.
    """
    env = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    home = tmp_path / "home"
    env["HOME"] = str(home)
    nowhere = "http://127.0.0.1:9/api"
    env |= {"PREFECT_API_URL": nowhere, "PREFECT_API_KEY": "pnu_0", "VARIATIONS_PROFILE": "none"}
    profiles = home / ".prefect" / "profiles.toml"
    profiles.parent.mkdir(parents=True)
    profiles.write_text(f'active = "cloud"\n[profiles.cloud]\nPREFECT_API_URL = "{nowhere}"\n')
    (tmp_path / "prefect.toml").write_text(f'[api]\nurl = "{nowhere}"\n')
    (tmp_path / "variations.toml").write_text('megapixels = "0.25"\nno_such_setting = 1\n')
    former = tmp_path / "demo-output"
    claim(former)
    (former / "images").mkdir()
    (former / "images" / "old.jpg").touch()
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
    assert not (former / "images" / "old.jpg").exists()
    assert "report.html" in done.stderr
    assert "image/webp" in (former / "report.html").read_text(encoding="utf-8")
    assert (former / "README.md").read_text(encoding="utf-8").startswith("---")
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    (loading,) = [code for code in re.findall(r"```python\n(.*?)```", readme, re.DOTALL) if "load_dataset" in code]
    loaded = subprocess.run(  # noqa: S603 - the README's own lines
        [sys.executable, "-c", f"{loading}\n    print(image.size, label)"],
        env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hf")},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert loaded.stdout.splitlines().count("(1024, 1024) " + frame["subject"].iloc[0]) >= 2
    assert (former / MARKER).is_file()


def test_a_folder_that_is_no_demos_is_left_alone(tmp_path: Path) -> None:
    """A dataset looks the same, and may have cost a lot: it is refused before anything is started."""
    (tmp_path / "images").mkdir()
    (tmp_path / "metadata.parquet").write_bytes(b"a dataset")
    with pytest.raises(BadInput, match="is not empty, and no demo's"):
        demo(output=tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images", "metadata.parquet"]


def test_a_demos_folder_with_a_users_run_in_it_is_left_alone(tmp_path: Path) -> None:
    """Whoever ran over the demo's own output has paid for what is there now."""
    claim(tmp_path)
    (tmp_path / "_runs").mkdir()
    with pytest.raises(BadInput, match="is not empty"):
        claim(tmp_path)


def test_a_file_is_no_folder_for_a_demo(tmp_path: Path) -> None:
    """It is said in one line."""
    (tmp_path / "file").touch()
    with pytest.raises(BadInput, match="cannot be the demo's output: File exists"):
        demo(output=tmp_path / "file")


def test_a_demos_folder_is_one_that_is_absent_empty_or_marked(tmp_path: Path) -> None:
    """It is marked before anything is written, so that a demo that broke off can be started again."""
    for folder in (tmp_path / "a" / "b", tmp_path / "a" / "b"):
        claim(folder)
        (folder / "images").mkdir(exist_ok=True)
    (tmp_path / "empty").mkdir()
    claim(tmp_path / "empty")
    assert (tmp_path / "empty" / MARKER).is_file()
