"""Where the bytes of a bundle lie: a folder, or a `.tar.gz` of one.

What comes in: a path. What goes out: its files by name, and, the other way, the bytes of an
archive. It must not know what is in the files, apart from which name marks a bundle.

An archive is read in memory and never unpacked, so no member can reach outside it; one that
tries to (`..`, an absolute path, a link, a device) is refused all the same, because no bundle
has such a member.
"""

from __future__ import annotations

import gzip
import io
import tarfile
import zlib
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Final, Protocol

from report.errors import BundleError

if TYPE_CHECKING:
    from collections.abc import Mapping

MANIFEST: Final = "manifest.json"

LIMIT_BYTES: Final = 256 * 2**20
"""Largest bundle, uncompressed; a benchmark run of a few hundred turns takes a few MiB."""

LIMIT_MEMBERS: Final = 1000
"""Most members of an archive; a bundle has seven files."""

_GIVE = "give the folder or the .tar.gz that the benchmark wrote"


class Store(Protocol):
    """The files of one bundle."""

    path: Path

    def read(self, name: str, limit: int) -> bytes | None:
        """The first `limit` + 1 bytes of a file, None when there is no such file.

        One byte beyond the limit tells that the file is longer. Raises `BundleError` when the
        file cannot be read.
        """

    def holds_any(self, names: frozenset[str]) -> bool:
        """Whether at least one of the files is there."""


class Folder:
    """A bundle as a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self, name: str, limit: int) -> bytes | None:
        """See `Store.read`."""
        file = self.path / name
        if not file.is_file():
            return None
        try:
            with file.open("rb") as stream:
                return stream.read(limit + 1)
        except OSError as error:
            raise _unreadable(file, error) from error

    def holds_any(self, names: frozenset[str]) -> bool:
        """See `Store.holds_any`."""
        return any((self.path / name).is_file() for name in names)


class Archive:
    """A bundle as a `.tar.gz`, at its top level or in one folder of it."""

    def __init__(self, path: Path, members: Mapping[str, bytes]) -> None:
        self.path = path
        manifests = [name for name in members if PurePosixPath(name).name == MANIFEST]
        if len(manifests) > 1:
            raise BundleError(
                str(path), f"holds {len(manifests)} bundles", "give an archive of one bundle"
            )
        # Without a manifest only the names matter, for saying what is wrong.
        root = PurePosixPath(manifests[0]).parent if manifests else None
        self._files = {
            PurePosixPath(name).name: data
            for name, data in members.items()
            if root is None or PurePosixPath(name).parent == root
        }

    def read(self, name: str, limit: int) -> bytes | None:
        """See `Store.read`."""
        data = self._files.get(name)
        return None if data is None else data[: limit + 1]

    def holds_any(self, names: frozenset[str]) -> bool:
        """See `Store.holds_any`."""
        return not names.isdisjoint(self._files)


def open_store(path: Path) -> Store:
    """The files under `path`, a folder or a `.tar.gz`.

    Raises `BundleError` when there is neither, or when the archive is damaged, too large or
    not one that a bundle is packed in.
    """
    try:
        if path.is_dir():
            return Folder(path)
        if not path.is_file():
            raise BundleError(str(path), "there is no such folder or archive", _GIVE)
        return Archive(path, _members(path, _inflate(path)))
    except OSError as error:
        raise _unreadable(path, error) from error


def pack(root: str, files: Mapping[str, bytes]) -> bytes:
    """A `.tar.gz` with `files` in a folder `root`, the same bytes for the same files.

    Members are sorted, owned by user 0 and dated 0, and the gzip header holds neither a name
    nor a date.
    """
    buffer = io.BytesIO()
    with (
        gzip.GzipFile(filename="", mode="wb", fileobj=buffer, mtime=0) as stream,
        tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as tar,
    ):
        for name in sorted(files):
            member = tarfile.TarInfo(f"{root}/{name}")
            member.size = len(files[name])
            member.mode = 0o644
            tar.addfile(member, io.BytesIO(files[name]))
    return buffer.getvalue()


def _unreadable(path: Path, error: OSError) -> BundleError:
    return BundleError(
        str(path), f"cannot be read ({error.strerror or error})", "check its permissions"
    )


def _inflate(path: Path) -> bytes:
    """The tar inside; bounded, so that a small file cannot fill the memory."""
    try:
        with gzip.open(path) as stream:
            data = stream.read(LIMIT_BYTES + 1)
    except gzip.BadGzipFile as error:
        raise BundleError(str(path), "is not a .tar.gz", _GIVE) from error
    except (EOFError, zlib.error) as error:
        raise BundleError(
            str(path), f"is cut off or damaged ({error})", "copy the archive again"
        ) from error
    if len(data) > LIMIT_BYTES:
        raise BundleError(
            str(path), f"is larger than {LIMIT_BYTES // 2**20} MiB when unpacked", _GIVE
        )
    return data


def _members(path: Path, data: bytes) -> dict[str, bytes]:
    """The regular files of a tar by their path in it."""
    members: dict[str, bytes] = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as tar:
            for count, member in enumerate(tar, 1):
                if count > LIMIT_MEMBERS:
                    raise BundleError(
                        str(path), f"holds more than {LIMIT_MEMBERS} files: not a bundle", _GIVE
                    )
                name = PurePosixPath(member.name)
                if member.isdir():
                    continue
                if name.is_absolute() or ".." in name.parts:
                    raise _foreign(path, member.name, "a path that leads out of the archive")
                # A sparse member is small here and of any size when it is read.
                if member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or member.issparse():
                    raise _foreign(path, member.name, "not a plain file")
                if str(name) in members:
                    raise _foreign(path, member.name, "there twice")
                content = tar.extractfile(member)
                assert content is not None, "a regular member has content"
                members[str(name)] = content.read()
    except BundleError:
        raise
    # tarfile lets the ValueErrors of malformed extended headers through.
    except (tarfile.TarError, ValueError, OverflowError) as error:
        raise BundleError(
            str(path), f"is not a whole tar archive ({error})", "copy the archive again"
        ) from error
    return members


def _foreign(path: Path, member: str, what: str) -> BundleError:
    return BundleError(str(path), f"not a bundle: its member {member!r} is {what}", _GIVE)
