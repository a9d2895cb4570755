"""A folder that the user opened to callers: nothing that does not really lie below it is listed or read.

A path is first followed to where it really leads; if that is below the root, it is opened from the root down, name by
name, with no link followed on the way. Whoever swaps a folder for a link in between gets a refusal and not a file.
"""

import os
import re
import stat
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, BinaryIO, cast
from unicodedata import category

from agent_jobs.errors import ConfigError, RequestError

#: The names of a path below its root, one by one.
Names = tuple[str, ...]

#: How far a pattern may look around: a call has to answer within seconds.
WALK_ENTRIES, WALK_S = 100_000, 10.0
GITIGNORE_BYTES = 1_000_000
#: Each wildcard more multiplies the time that a regular expression may take, and hardly a rule has as many.
IGNORE_STARS, IGNORE_STARS_IN_NAME = 6, 3

#: What holds keys and passwords by its name. Whoever wants a model to see one copies it under another name.
SECRET_FOLDERS = {".aws", ".azure", ".docker", ".gcloud", ".gnupg", ".kube", ".password-store", ".ssh"}
SECRET_FILES = (
    ".env", ".env.*", ".envrc", ".netrc", "_netrc", ".npmrc", ".pypirc", ".pgpass", ".htpasswd", ".git-credentials",
    ".vault-token", "id_rsa", "id_dsa", "id_ecdsa", "id_ecdsa_sk", "id_ed25519", "id_ed25519_sk", "credentials.json",
    "client_secret*.json", "*.pem", "*.key", "*.p12", "*.pfx", "*.ppk", "*.jks", "*.keystore", "*.kdbx", "*.tfstate",
    "*.tfstate.*", "shadow", "gshadow", "master.passwd",
)  # fmt: skip
NO_SECRETS = (".env.example", ".env.sample", ".env.template", ".env.dist")

# A name that Windows lacks changes nothing there.
_FOLDER = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_PATH", 0)
# A FIFO would hold the open until somebody writes; a terminal would become ours.
_WITHOUT_WAITING = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0)
_FILE = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0) | _WITHOUT_WAITING


class UnfitError(RequestError):
    """A file that cannot be attached: refused where it was named, left out and counted by `reason` in a glob."""

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


class Budget:
    """How much the patterns of one call may look at, all together."""

    def __init__(self) -> None:
        self._entries = WALK_ENTRIES
        self._until = time.monotonic() + WALK_S

    def spend(self, folder: Names) -> None:
        """Look at one more entry.

        Raises:
            RequestError: That is one too many, or it takes too long.
        """
        self._entries -= 1
        if self._entries < 0 or time.monotonic() > self._until:
            raise RequestError(f"there is too much to look through below {shown(folder)!r}: name folders further down.")


@dataclass(frozen=True, slots=True)
class Root:
    """One folder of AGENT_JOBS_FILE_ROOTS: as it was written, and where it really is."""

    written: Path
    real: Path

    @classmethod
    def of(cls, folder: Path) -> "Root":
        """The root at a folder.

        Raises:
            ConfigError: The folder is not there.
        """
        real = Path(os.path.realpath(folder))
        if not os.path.isdir(real):
            raise ConfigError(
                f"AGENT_JOBS_FILE_ROOTS names {folder}, which is no folder: set it to folders that exist."
            )
        return cls(folder, real)

    def names(self, path: Path) -> Names | None:
        """The names that a path has below this root, None for one that is written to lie elsewhere."""
        if not path.is_absolute():
            return path.parts
        for base in (self.written, self.real):
            if path.is_relative_to(base):
                return path.relative_to(base).parts
        return None

    def real_names(self, names: Names) -> Names:
        """Where the names lead, with every link followed, be there something or not.

        Raises:
            UnfitError: A link leads out of the root; whether there is something, is not told.
        """
        try:
            real = Path(os.path.realpath(self.real.joinpath(*names)))
        except OSError as error:  # a link that is gone between two looks at it
            raise unreadable(names, error) from None
        if not real.is_relative_to(self.real):
            raise UnfitError(
                f"{shown(names)} leaves {shown((str(self.written),))} by a link: name a file that lies below it.",
                "behind links that leave the root",
            )
        return real.relative_to(self.real).parts

    @contextmanager
    def opened(self, names: Names) -> Generator[BinaryIO]:
        """A regular file below the root, opened without following any link and without waiting.

        Raises:
            UnfitError: It is none, or nobody may read it.
        """
        try:
            descriptor = self._open(names)
        except OSError as error:
            raise unreadable(names, error) from None
        with os.fdopen(descriptor, "rb") as file:
            _regular(names, os.fstat(descriptor))
            yield file

    def walk(
        self,
        start: Names,
        glob: Names,
        left_out: Counter[str],
        budget: Budget,
        fold: Callable[[str], str] | None = None,
    ) -> Iterator[Names]:
        """The files below a folder of the root that a glob matches, as shells and git see it.

        Hidden entries are for patterns that write their dot; folders are not followed through links; what is ignored,
        protected or no file is counted in `left_out`. Names come as they really are, in no order. With `fold`, glob
        and names are compared folded.

        Raises:
            RequestError: There is too much to look at.
        """
        glob = tuple(map(fold, glob)) if fold else glob
        ignored = Ignored(self, start)
        folders = [(start, _after(glob, {0}))]
        while folders:
            folder, places = folders.pop()
            for entry in self._entries(folder, left_out):
                budget.spend(start)
                names = (*folder, entry.name)
                name = fold(entry.name) if fold else entry.name
                if not (next_places := _after(glob, _step(glob, places, name))):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    if fits := self._fits(names, ignored, left_out, folder=True):
                        folders.append((fits, next_places))
                elif len(glob) in next_places and (fits := self._fits(names, ignored, left_out, folder=False)):
                    yield fits

    def _fits(self, names: Names, ignored: "Ignored", left_out: Counter[str], *, folder: bool) -> Names | None:
        """Where an entry really is, unless it is to be left out."""
        try:
            if ignored(names, folder=folder):
                raise UnfitError("", "ignored by .gitignore")
            real = self.real_names(names) if not folder else names
            refuse_protected(real)
            if real != names and ignored.covers(real, folder=False):
                raise UnfitError("", "ignored by .gitignore")
            if not folder:
                _regular(names, os.lstat(self.real.joinpath(*real)))
        except UnfitError as unfit:
            left_out[unfit.reason] += 1
        except OSError as error:
            left_out[unreadable(names, error).reason] += 1
        else:
            return real
        return None

    def _entries(self, folder: Names, left_out: Counter[str]) -> list["os.DirEntry[str]"]:
        try:
            with os.scandir(self.real.joinpath(*folder)) as entries:
                return list(entries)
        except OSError as error:
            left_out[unreadable(folder, error).reason] += 1
            return []

    def _open(self, names: Names) -> int:
        if os.open not in os.supports_dir_fd:  # pragma: no cover  (Windows; not run there)
            return os.open(self.real.joinpath(*names), _FILE)
        folder = os.open(self.real, _FOLDER)
        try:
            for name in names[:-1]:
                folder, above = os.open(name, _FOLDER, dir_fd=folder), folder
                os.close(above)
            # To open a device can already do something, so look first.
            _regular(names, os.stat(names[-1], dir_fd=folder, follow_symlinks=False))
            return os.open(names[-1], _FILE, dir_fd=folder)
        finally:
            os.close(folder)


@dataclass(frozen=True, slots=True)
class Rule:
    """One line of a .gitignore: pathspec knows what it says, git's own order decides what that means."""

    expression: re.Pattern[str]
    ignores: bool
    #: `x/**` speaks of what is in x, and x is told from it only by the slash that ends a folder's path.
    inside: bool

    def speaks_of(self, path: str, *, folder: bool) -> bool:
        """Whether this entry itself matches, and not only a folder that it lies in."""
        path += "/" if folder and not self.inside else ""
        # pathspec matches a folder with all below it; its one group is the slash behind the name that matched.
        return any(
            found.lastindex is None or found.end(found.lastindex) == len(path)
            for found in self.expression.finditer(path)
        )


class Ignored:
    """What the .gitignore files from the root down leave out; those above the root are not ours to read."""

    def __init__(self, root: Root, start: Names) -> None:
        self._root = root
        self._rules: dict[Names, list[Rule]] = {}
        # As with ripgrep: who names an ignored folder wants what is in it.
        self._first = 0
        self._first = len(start) if self.covers(start, folder=True) else 0

    def covers(self, names: Names, *, folder: bool) -> bool:
        """Whether this entry or a folder that it lies in is ignored."""
        return any(self(names[:depth], folder=folder or depth < len(names)) for depth in range(1, len(names) + 1))

    def __call__(self, names: Names, *, folder: bool) -> bool:
        """Whether a rule ignores this entry: the last one that speaks of it in the deepest file decides, as in git."""
        for depth in reversed(range(self._first, len(names))):
            path = "/".join(names[depth:])
            for rule in self._of(names[:depth]):
                if rule.speaks_of(path, folder=folder):
                    return rule.ignores
        return False

    def _of(self, folder: Names) -> list[Rule]:
        if folder not in self._rules:
            self._rules[folder] = self._read((*folder, ".gitignore"))
        return self._rules[folder]

    def _read(self, names: Names) -> list[Rule]:
        path = self._root.real.joinpath(*names)
        # Like git, which takes no rules from a link.
        if os.path.islink(path) or not os.path.isfile(path):
            return []
        with self._root.opened(names) as file:
            text = file.read(GITIGNORE_BYTES + 1)
        if len(text) > GITIGNORE_BYTES:
            raise RequestError(f"{shown(names)} is larger than {GITIGNORE_BYTES} bytes: name files instead of folders.")
        return _rules(os.fsdecode(text.removeprefix(b"\xef\xbb\xbf")).split("\n"))


def refuse_protected(names: Names) -> None:
    """Refuse what is git's own or keeps secrets, by its name.

    Raises:
        UnfitError: It is protected.
    """
    lower = [name.lower() for name in names]
    if ".git" in lower:
        raise UnfitError(f"{shown(names)} is git's own and is not attached: name a file outside .git.", "git's own")
    secret = lower and any(fnmatchcase(lower[-1], pattern) for pattern in SECRET_FILES) and lower[-1] not in NO_SECRETS
    if secret or SECRET_FOLDERS.intersection(lower):
        raise secret_error(names)


def secret_error(names: Names) -> UnfitError:
    """The refusal of a file that seems to hold a secret."""
    return UnfitError(
        f"{shown(names)} seems to hold keys or passwords and is not attached: copy what is harmless into another file.",
        "seem to hold secrets",
    )


def unreadable(names: Names, error: OSError) -> UnfitError:
    """The refusal of a file that the system does not give."""
    return UnfitError(
        f"{shown(names)} cannot be read ({error.strerror}): check its permissions or name another file.",
        "unreadable",
    )


def shown(names: Names) -> str:
    """The names as a person or a model reads them: nothing in them can end a line or hide."""
    text = "/".join(names).encode("utf-8", "replace").decode()
    return "".join(char if char.isprintable() else " " if category(char) == "Zs" else "?" for char in text) or "."


def _regular(names: Names, found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        what = "a folder" if stat.S_ISDIR(found.st_mode) else "a device, a pipe, a socket or a link"
        raise UnfitError(f"{shown(names)} is {what} and not a file: name a regular file.", "no regular files")


def _step(glob: Names, places: set[int], name: str) -> set[int]:
    """The places of a glob that are reached by one more name; `**` stays where it is."""
    reached: set[int] = set()
    for place in places - {len(glob)}:
        if name.startswith(".") and not glob[place].startswith("."):
            continue
        if glob[place] == "**":
            reached.add(place)
        elif fnmatchcase(name, glob[place]):
            reached.add(place + 1)
    return reached


def _after(glob: Names, places: set[int]) -> set[int]:
    """The places, and those behind every `**` at them, which may stand for nothing."""
    reached = set(places)
    for place, part in enumerate(glob):
        if place in reached and part == "**":
            reached.add(place + 1)
    return reached


def _rules(lines: Sequence[str]) -> list[Rule]:
    """The rules that the lines hold, the last one first."""
    from pathspec import GitIgnoreSpec  # not needed to answer `initialize`

    rules: list[Rule] = []
    for line in map(_tamed, lines):
        try:
            found = cast("list[Any]", list(GitIgnoreSpec.from_lines([line]).patterns))
        except (ValueError, re.error):
            continue  # a rule that is none: git passes over it, too
        rules += [Rule(one.regex, one.include, line.endswith("/**")) for one in found if one.include is not None]
    return rules[::-1]


def _tamed(line: str) -> str:
    """A rule that a hostile repository cannot make us think about for ever: cut to a wider one, never to a narrower."""
    line = line.removesuffix("\r")
    if line.endswith("**/"):
        line += "*/"  # the same folders, said so that each is matched by its own name
    stars = [star.start() for star in re.finditer(r"\*+", line)]
    in_name = Counter(line.count("/", 0, star) for star in stars)
    if len(stars) <= IGNORE_STARS and max(in_name.values(), default=0) <= IGNORE_STARS_IN_NAME:
        return line
    if line.startswith("!"):
        return ""
    special = re.search(r"[\[\\]", line)
    return line[: special.start() if special else stars[IGNORE_STARS_IN_NAME - 1]] + "*"
