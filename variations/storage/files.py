"""Files that appear whole or not at all."""

import contextlib
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from variations.errors import BadInput, StorageError
from variations.storage.keys import printable

_TEMPORARY = re.compile(r"\.variations-[0-9a-f]{16}\.tmp")


@dataclass(frozen=True, slots=True)
class TemporaryFile:
    """A file under a temporary name, open for writing; to be renamed, or forgotten."""

    path: Path
    file: BinaryIO


@contextmanager
def temporary_beside(target: Path) -> Iterator[TemporaryFile]:
    """Make an empty file in the target's folder, with the rights of any new file, and remove what is left of it.

    A process that is killed meanwhile leaves it there: `is_temporary` tells such a name.

    Raises:
        OSError: the folder cannot be made or written.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    path = target.parent / f".variations-{secrets.token_hex(8)}.tmp"
    with path.open("xb") as file:
        try:
            yield TemporaryFile(path=path, file=file)
        finally:
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)


def is_temporary(name: str) -> bool:
    """Return whether a file's name is one that `temporary_beside` makes."""
    return _TEMPORARY.fullmatch(name) is not None


def open_for_upload(path: Path, *, uri: str) -> BinaryIO:
    """Open a local file that is to be stored at `uri`.

    Raises:
        BadInput: it cannot be read.
    """
    try:
        return path.open("rb")
    except OSError as error:
        raise BadInput(f"{printable(uri)}: cannot read {printable(str(path))} to store it: {error.strerror}") from error


@contextmanager
def writing_locally(path: Path, *, uri: str) -> Iterator[None]:
    """Turn an error of the file system into one that names the file and the object it was to hold.

    Raises:
        StorageError: the file cannot be written.
    """
    try:
        yield
    except OSError as error:
        why = error.strerror or type(error).__name__
        raise StorageError(f"{printable(uri)}: cannot write {printable(str(path))} to hold it: {why}") from error
