"""Litter: files that file managers, network file systems, snapshots and synchronisers leave beside the user's.

They contain nothing of a store or a source, come and go by themselves, and often cannot be deleted. So they are neither
damage nor input. They are recognised by name alone; a name that could be content, such as a shard's, is never litter.
"""

import fnmatch
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

FILES = (
    # file managers of macOS, Windows and KDE
    ".ds_store", "._*", ".localized", "icon\r", ".apdisk", "thumbs.db", "ehthumbs.db", "desktop.ini", ".directory",
    # files that were deleted while a process had them open: NFS, FUSE, AFP, SMB, Panasas
    ".nfs*", ".fuse_hidden*", ".afpdeleted*", ".smbdelete*", ".panfs*",
    # Dropbox, ownCloud and Nextcloud, Syncthing, git's way to keep an empty folder, backup programs
    ".dropbox", ".dropbox.attr", ".sync_*.db*", ".owncloudsync.log*", ".nextcloudsync.log*",
    ".stignore", ".syncthing.*.tmp", ".gitkeep", ".keep", ".gitignore", ".gitattributes", ".nobackup", "cachedir.tag",
)  # fmt: skip
"""Names of files, in lower case; `*` stands for anything."""

FOLDERS = (
    ".appledouble", "__macosx", ".spotlight-v100", ".fseventsd", ".temporaryitems", ".documentrevisions-v100",
    ".trashes", ".trash", ".trash-*", "$recycle.bin", "system volume information", "lost+found",
    # snapshots and bins of NetApp, ZFS, Spectrum Scale, Synology and QNAP
    ".snapshot", ".snapshots", "~snapshot", ".zfs", ".ckpt", "@eadir", "#recycle", "#snapshot", "@recycle",
    "@recently-snapshot", ".dropbox.cache", ".stfolder", ".stversions", ".sync", ".git", ".ipynb_checkpoints",
)  # fmt: skip
"""Names of folders, likewise; nothing inside them counts."""


# one pattern of each: a source may have a million files
_FILE, _FOLDER = (re.compile("|".join(map(fnmatch.translate, names))) for names in (FILES, FOLDERS))


def is_file(name: str) -> bool:
    """Tells whether a file of this name, without its folder, is litter."""
    return _FILE.match(name.lower()) is not None


def is_folder(name: str) -> bool:
    """Tells whether a folder of this name is litter, with all its content."""
    return _FOLDER.match(name.lower()) is not None


def is_litter(path: Path) -> bool:
    """Tells whether `path` is litter: a plain file or a folder of such a name, never a link."""
    as_file, as_folder = is_file(path.name), is_folder(path.name)
    if not (as_file or as_folder) or path.is_symlink():
        return False
    return as_folder if path.is_dir() else as_file


def unless_named(paths: Iterable[str], pattern: str) -> list[str]:
    """Filters `paths`, which a glob `pattern` matches: drops litter, and everything inside a litter folder.

    Folders that the pattern itself names are kept, such as that of `/data/.snapshot/*.nc`.
    """
    named = set(pattern.split("/"))

    def meant(path: str) -> bool:
        *folders, name = (part for part in path.split("/") if part not in named or not part)
        return not is_file(name) and not any(map(is_folder, folders))

    return [path for path in paths if meant(path)]


def walk(root: Path) -> Iterator[tuple[Path, bool]]:
    """Yields every file and link below `root`, in order of name, and whether it is litter; links are not followed.

    Litter folders come as one entry and are not entered, since that is often forbidden.

    Raises:
        OSError: a folder cannot be looked into.
    """

    def fail(error: OSError) -> None:
        raise error

    for place, folders, names in os.walk(root, onerror=fail):
        folder = Path(place)
        left = sorted(name for name in folders if is_litter(folder / name))
        folders[:] = sorted(set(folders) - set(left))
        yield from ((folder / name, False) for name in folders if (folder / name).is_symlink())
        yield from ((folder / name, True) for name in left)
        for name in sorted(names):
            path = folder / name
            yield path, is_file(name) and is_litter(path)


def is_empty(folder: Path) -> bool:
    """Tells whether `folder` itself contains nothing but litter."""
    return all(is_litter(path) for path in folder.iterdir())


def sweep(folder: Path) -> None:
    """Deletes the litter files in `folder` itself as far as possible, so that the folder can be removed."""
    for path in folder.iterdir():
        if not path.is_dir() and is_litter(path):
            try:
                path.unlink()
            except OSError:
                continue  # still open elsewhere, on a network file system
