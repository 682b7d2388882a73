"""What lies in a folder: class folders, the two parts of a divided set, images, and what nobody put there.

This file needs no torch and opens no image, so `present` answers in milliseconds.
"""

import os
import re
import stat
import unicodedata
from collections.abc import Callable
from pathlib import Path

from clkit.data.facts import COMBINED, EMBEDDED, FOLDER, PUBLISHED, DataError, missing, root
from clkit.errors import did_you_mean

# What operating systems, file servers and archives leave in folders: passed over, like hidden files.
_STRAY = re.compile(
    r"\..*|(eh)?thumbs(_vista)?\.db|desktop\.ini|picasa\.ini|icon\r|.*zone\.identifier|__macosx|@eadir"
    r"|lost\+found|\$recycle\.bin|system volume information",
    re.IGNORECASE | re.DOTALL,
)
# Names of the parts of a set, and of folders for all images or for all annotations: none is a class's name.
_WORDS = {
    "train": ("train", "training", "trn"),
    "test": ("test", "testing", "tst"),
    "val": ("val", "valid", "validation", "dev", "eval", "evaluation"),
    "all": ("images?", "imgs?", "pictures?", "photos?", "data", "labels?", "annotations?", "masks?"),
}
_PARTS = {
    part: re.compile(
        rf"(?:seg[\W\d_]*)?[\W\d_]*(?:{'|'.join(words)})"
        r"[\W\d_]*(?:(?:data)?set|data|split|images?|imgs?|pictures?|photos?)?[\W\d_]*",
        re.IGNORECASE,
    )
    for part, words in _WORDS.items()
}
_ORDINARY = ("train", "valid")  # which may be classes beside others: a vehicle, a verdict


def is_stray(name: str) -> bool:
    """Whether a file or folder of this name is hidden, or was left by an operating system."""
    return _STRAY.fullmatch(name) is not None


def _is_hidden(name: str) -> bool:
    return name.startswith(".")


def _is_folder(entry: os.DirEntry) -> bool:
    """Whether an entry is a folder, or a link to one; False if nobody can tell."""
    return os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir()


def subfolders(folder: Path, skip: Callable[[str], bool] = is_stray) -> list[str]:
    """Sorted names of the folders in a folder, without those to skip; empty if it does not exist."""
    if not os.path.isdir(folder):
        return []
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if _is_folder(entry) and not skip(entry.name))


# ---- class folders


def parts(path: Path) -> tuple[Path, Path] | None:
    """The folders of the training and test part, such as train/ and Testing/; None if the set is undivided.

    A third part, for validation, is passed over. DataError if a part is absent, is there twice or has no
    class folders: the parts of a set are never taken for classes.
    """
    names = subfolders(path)
    named = {p: [n for n in names if word.fullmatch(n)] for p, word in _PARTS.items()}
    every = named.pop("all")
    divided = {p: [n for n in found if subfolders(path / n)] for p, found in named.items()}
    if divided["train"] and divided["test"]:
        for found in (divided["train"], divided["test"]):
            if len(found) > 1:
                fault = f"{path} holds {_and(found)}, which are names of the same part"
                raise DataError(f"{fault}: keep one of them there")
        return path / divided["train"][0], path / divided["test"][0]
    if there := [*divided["train"], *divided["val"], *divided["test"]]:
        lack = "test" if divided["train"] else "train"
        fault = f"{path} has class folders in {_and(there)} but none in {lack}/"
        cures = [f"add {lack}/<class>/ for the same classes"]
        cures += [f"rename {val}/ if it is the {lack} set" for val in divided["val"]]
        cures += [f"load {path / there[0]} itself, which is then split into 80 % training and 20 % test"]
        raise DataError(f"{fault}: {', or '.join(cures)}")
    flat = [*named["train"], *named["val"], *named["test"]]
    classes = len(names) - len(flat) - len(every)
    alone = not flat or (len(flat) == 1 and flat[0].casefold() in _ORDINARY)
    if len(names) > 1 and not (classes and alone):
        fault = f"{_and(flat or every)} in {path} cannot be taken for classes"
        cure = f"put the images into {path}/train/<class>/ and {path}/test/<class>/"
        raise DataError(f"{fault}: {cure}, or name the folder that holds the class folders")
    return None


def _and(names: list[str]) -> str:
    *most, last = [f"{name}/" for name in names]
    return f"{', '.join(most)} and {last}" if most else last


def class_folders(folder: Path) -> dict[str, Path]:
    """{class name: its folder}, sorted by name. DataError if there are fewer than two, or for odd names.

    Names are compared as Unicode's composed form (NFC), so that an accent counts as the same in both of its
    spellings.
    """
    found: dict[str, Path] = {}
    for name in subfolders(folder):
        check_folder_name(name, folder / name)
        composed = unicodedata.normalize("NFC", name)
        if composed in found:
            both = f"{found[composed].name!a} and {name!a}"
            fault = f"two class folders in {folder} have one name in two spellings of Unicode ({both})"
            raise DataError(f"{fault}: merge them into one")
        found[composed] = folder / name
    if len(found) < 2:
        count = f"{len(found) or 'no'} class folder{'s' * (len(found) != 1)}"
        cure = "make one folder of images per class there"
        if found and subfolders(only := next(iter(found.values()))):
            cure += f", or name {only} if its folders are the classes"
        raise DataError(f"{folder} holds {count}, but at least two are needed: {cure}")
    return dict(sorted(found.items()))


def check_folder_name(name: str, path: Path) -> None:
    """Raise DataError for a name that no record could hold: not UTF-8, or with control characters."""
    if any(unicodedata.category(letter) in ("Cc", "Cs") for letter in name):
        fault = f"the name of the folder {str(path)!a} is not UTF-8, or has control characters"
        raise DataError(f"{fault}: rename the folder")


def files_below(folder: Path) -> list[tuple[str, os.stat_result]]:
    """[(path, state)] of the files in a folder and below it, sorted by name, without stray ones.

    DataError for what is no file (a pipe, a link that leads nowhere), and for a folder that links lead to a
    second time, as in a circle.
    """
    parents = Path(os.path.realpath(folder)).parents
    found, waiting, seen = [], [str(folder)], {_identity(p): str(p) for p in parents}
    while waiting:
        here = waiting.pop()
        known = seen.setdefault(_identity(here), here)
        if known is not here:
            fault = f"the folder {here} is {known} once more, which a link leads to"
            raise DataError(f"{fault}: remove the link")
        with os.scandir(here) as entries:
            for entry in entries:
                if is_stray(entry.name):
                    continue
                if _is_folder(entry):
                    waiting.append(entry.path)
                else:
                    found.append((entry.path, _state(entry)))
    return sorted(found, key=lambda file: file[0].split(os.sep))


def _identity(folder: Path | str) -> object:
    """The same for all paths of one folder."""
    state = os.stat(folder)
    return (state.st_dev, state.st_ino) if state.st_ino else os.path.realpath(folder)


def _state(entry: os.DirEntry) -> os.stat_result:
    try:
        state = entry.stat()
    except OSError as error:  # a link that leads nowhere
        fault = f"{entry.path} cannot be read ({error.strerror})"
        raise DataError(f"{fault}: remove or replace it") from error
    if not stat.S_ISREG(state.st_mode):
        raise DataError(f"{entry.path} is a pipe or a device, not a file: remove it")
    return state


# ---- names of data sets


def state_of_root() -> str:
    """A note in brackets if the root is absent or cannot be read, else ""."""
    try:
        os.scandir(root()).close()
    except FileNotFoundError:
        return " (not there yet)"
    except OSError as error:
        return f" (passed over: it cannot be read, {error.strerror})"
    return ""


def folder_names() -> list[str]:
    """Names of the folders below the root that hold class folders, or that cannot be read.

    Published sets that are stored as class folders are among them. Empty if the root cannot be read.
    """
    try:
        names = subfolders(root(), skip=_is_hidden)
    except OSError:
        return []
    names = [name for name in names if name not in EMBEDDED and name not in COMBINED]
    return [name for name in names if _may_hold_classes(root() / name)]


def _may_hold_classes(path: Path) -> bool:
    try:
        return any(_PARTS["train"].fullmatch(name) and subfolders(path / name) for name in subfolders(path))
    except OSError:
        return True


def stored_as_folders(name: str) -> bool:
    """Whether a published set has a folder of its name for class folders.

    Where capitals do not count, root()/mnist is MNIST, the folder of the published files.
    """
    folder, files = root() / name, root() / PUBLISHED[name].folder.partition("/")[0]
    return os.path.isdir(folder) and not (os.path.isdir(files) and os.path.samefile(folder, files))


def check_name(name: str) -> None:
    """Raise DataError with the most similar names if there is no data set `name`."""
    if not isinstance(name, str):
        raise DataError(f"a data set's name must be a string such as 'digits' or 'folder:PATH', not {name!r}")
    if "+" in name:
        for part in name.split("+"):
            check_name(part)
        return
    fixed = [*EMBEDDED, *PUBLISHED, *COMBINED]
    if name in fixed:  # even if the root cannot be read
        return
    names = [*fixed, *(n for n in folder_names() if n not in PUBLISHED)]
    if name in names or (re.fullmatch(r"[\w][\w.-]*", name) and os.path.isdir(root() / name)):
        return
    hint = did_you_mean(name.lower(), names) or f"; the known names are {', '.join(names)}"
    how = f"for class folders write folder:PATH, or NAME if they are in {root()}/NAME"
    raise DataError(f"there is no data set {name!r}; {how}{hint}")


def folder_of(name: str) -> Path:
    """The folder in folder:PATH. DataError if PATH is empty, which would mean the current folder."""
    text = name.removeprefix(FOLDER)
    if not text.strip():
        how = "write folder:PATH, such as folder:my-images, or folder:. for the current folder"
        raise DataError(f"{name!r} names no folder: {how}")
    path = Path(os.path.expanduser(text))
    check_folder_name(text, path)
    return path


def present(name: str) -> bool:
    """Whether a named set, or folder:PATH, can be loaded, as far as the names of its files tell.

    Nothing is opened, so `load` may still find a damaged file. False for an unknown name and for a folder
    that cannot be read.
    """
    try:
        if name in EMBEDDED:
            return True
        if "+" in name and not name.startswith(FOLDER):
            return all(present(part) for part in name.split("+"))
        if name in COMBINED:
            return all(_whole(part) for part in COMBINED[name])
        if name in PUBLISHED and not missing(name):
            return True
        if name.startswith(FOLDER):
            return _holds_classes(folder_of(name))
        return name in subfolders(root()) and _holds_classes(root() / name)
    except (OSError, DataError):
        return False


def _whole(name: str) -> bool:
    """Whether a published set is present with all its classes, as files or as class folders."""
    divided = None if not missing(name) else parts(root() / name)
    return not missing(name) or (divided and len(subfolders(divided[0])) == len(PUBLISHED[name].names))


def _holds_classes(path: Path) -> bool:
    return min(len(subfolders(part)) for part in parts(path) or (path,)) >= 2
