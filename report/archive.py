"""Where the bytes of a bundle lie: a folder, or a `.tar.gz` of one.

What comes in: a path. What goes out: its files by name, and, the other way, the bytes of an
archive. It must not know what is in the files, apart from which name marks a bundle.

An archive is inflated into one unnamed temporary file and its members are read from there, so no
member can reach outside it; one that tries to (`..`, an absolute path, a link, a device) is
refused all the same, because no bundle has such a member.
"""

from __future__ import annotations

import gzip
import hashlib
import tarfile
import tempfile
import zlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Final, Protocol

from report.errors import BundleError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

MANIFEST: Final = "manifest.json"

LIMIT_BYTES: Final = 8 * 2**30
"""Largest bundle, uncompressed. A few hundred turns take a few MiB, a million some 3 GiB."""

LIMIT_MEMBERS: Final = 1000
"""Most members of an archive; a bundle has seven files."""

_GIVE = "give the folder or the .tar.gz that the benchmark wrote"


_BLOCK: Final = 2**18
"""Bytes that are read at once: they stay in the processor's cache until they are hashed."""


@dataclass(frozen=True, slots=True)
class Region:
    """The bytes of one file: `size` of them from `offset` in the file `path`."""

    path: Path
    offset: int
    size: int

    def blocks(self) -> Iterator[bytes]:
        """The bytes, some at a time; OSError when they cannot be read."""
        with self.path.open("rb") as stream:
            stream.seek(self.offset)
            left = self.size
            while left and (block := stream.read(min(_BLOCK, left))):
                left -= len(block)
                yield block

    def read(self) -> bytes:
        """All of it; OSError when it cannot be read."""
        return b"".join(self.blocks())

    def sha256(self) -> str:
        """Hash of the bytes, in hex; OSError when they cannot be read."""
        digest = hashlib.sha256()
        for block in self.blocks():
            digest.update(block)
        return digest.hexdigest()


class Store(Protocol):
    """The files of one bundle. It must live as long as its regions are read."""

    path: Path

    def find(self, name: str) -> Region | None:
        """Where a file lies, None when there is no such file."""

    def holds_any(self, names: frozenset[str]) -> bool:
        """Whether at least one of the files is there."""


class Folder:
    """A bundle as a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def find(self, name: str) -> Region | None:
        """See `Store.find`."""
        file = self.path / name
        return Region(file, 0, file.stat().st_size) if file.is_file() else None

    def holds_any(self, names: frozenset[str]) -> bool:
        """See `Store.holds_any`."""
        return any((self.path / name).is_file() for name in names)


class Archive:
    """A bundle as a `.tar.gz`, at its top level or in one folder of it."""

    def __init__(self, path: Path, tar: IO[bytes]) -> None:
        self.path = path
        self._tar = tar
        """Held open: the file is gone when it is closed."""
        members = _members(path, tar)
        manifests = [name for name in members if PurePosixPath(name).name == MANIFEST]
        if len(manifests) > 1:
            raise BundleError(
                str(path), f"holds {len(manifests)} bundles", "give an archive of one bundle"
            )
        # Without a manifest only the names matter, for saying what is wrong.
        root = PurePosixPath(manifests[0]).parent if manifests else None
        self._files = {
            PurePosixPath(name).name: region
            for name, region in members.items()
            if root is None or PurePosixPath(name).parent == root
        }

    def find(self, name: str) -> Region | None:
        """See `Store.find`."""
        return self._files.get(name)

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
        return Archive(path, _inflate(path))
    except OSError as error:
        raise unreadable(path, error) from error


def pack(root: str, files: Mapping[str, Region], into: IO[bytes]) -> None:
    """Write a `.tar.gz` with `files` in a folder `root`, the same bytes for the same files.

    Members are sorted, owned by user 0 and dated 0, and the gzip header holds neither a name
    nor a date.
    """
    with (
        gzip.GzipFile(filename="", mode="wb", fileobj=into, mtime=0) as stream,
        tarfile.open(fileobj=stream, mode="w", format=tarfile.GNU_FORMAT) as tar,
    ):
        for name in sorted(files):
            region = files[name]
            member = tarfile.TarInfo(f"{root}/{name}")
            member.size = region.size
            member.mode = 0o644
            with region.path.open("rb") as source:
                source.seek(region.offset)
                tar.addfile(member, source)


def unreadable(path: Path, error: OSError) -> BundleError:
    """A file that is there and cannot be read."""
    return BundleError(
        str(path), f"cannot be read ({error.strerror or error})", "check its permissions"
    )


def _inflate(path: Path) -> IO[bytes]:
    """The tar inside; bounded, so that a small file cannot fill the disk."""
    tar = tempfile.NamedTemporaryFile(prefix="talkscope-")  # noqa: SIM115 - lives on in Archive
    size = 0
    try:
        with gzip.open(path) as stream:
            while block := stream.read(_BLOCK):
                size += len(block)
                if size > LIMIT_BYTES:
                    raise BundleError(
                        str(path), f"is larger than {LIMIT_BYTES // 2**20} MiB when unpacked", _GIVE
                    )
                tar.write(block)
    except gzip.BadGzipFile as error:
        raise BundleError(str(path), "is not a .tar.gz", _GIVE) from error
    except (EOFError, zlib.error) as error:
        raise BundleError(
            str(path), f"is cut off or damaged ({error})", "copy the archive again"
        ) from error
    tar.flush()
    return tar


def _members(path: Path, file: IO[bytes]) -> dict[str, Region]:
    """Where the regular files of a tar lie, by their path in it."""
    members: dict[str, Region] = {}
    file.seek(0, 2)
    end = file.tell()
    file.seek(0)
    try:
        with tarfile.open(fileobj=file, mode="r:") as tar:
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
                if not 0 <= member.size <= end - member.offset_data:
                    raise tarfile.ReadError("unexpected end of data")
                members[str(name)] = Region(Path(file.name), member.offset_data, member.size)
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
