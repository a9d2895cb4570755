"""Apply the .gitignore files below a root as git does."""

import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

from agent_jobs.attachments.path_names import Names, printable_path
from agent_jobs.attachments.roots import Root
from agent_jobs.errors import RequestError

GITIGNORE_BYTES = 1_000_000  # a longer file is generated, and reading it would delay every call
#: Each further wildcard multiplies the worst time of a regular expression, and real rules have fewer.
IGNORE_STARS = 6
IGNORE_STARS_IN_NAME = 3
_UTF8_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Rule:
    """One line of a .gitignore. pathspec compiles it; the order of the lines decides between rules, as in git."""

    expression: re.Pattern[str]
    ignores: bool
    #: `x/**` is about the content of x, which differs from x itself only by the slash that ends a folder's path.
    inside: bool

    def matches(self, path: str, *, folder: bool) -> bool:
        """Return True if this entry itself matches, and not only a folder that contains it."""
        if folder and not self.inside:
            path += "/"
        # pathspec matches a folder with all below it; its one group is the slash behind the name that matched.
        return any(
            found.lastindex is None or found.end(found.lastindex) == len(path)
            for found in self.expression.finditer(path)
        )


class IgnoreRules:
    """The rules of the .gitignore files from the root down; those above the root may not be read."""

    def __init__(self, root: Root, start: Names) -> None:
        self._root = root
        self._rules: dict[Names, list[Rule]] = {}
        self._first_depth = 0
        if self.covers(start, folder=True):
            # As in ripgrep: a caller who names an ignored folder wants its content.
            self._first_depth = len(start)

    def covers(self, names: Names, *, folder: bool) -> bool:
        """Return True if this entry or a folder that contains it is ignored."""
        return any(
            self.ignores(names[:depth], folder=folder or depth < len(names)) for depth in range(1, len(names) + 1)
        )

    def ignores(self, names: Names, *, folder: bool) -> bool:
        """Return True if a rule ignores this entry: as in git, the last match in the deepest file decides."""
        for depth in reversed(range(self._first_depth, len(names))):
            path = "/".join(names[depth:])
            for rule in self._rules_of_folder(names[:depth]):
                if rule.matches(path, folder=folder):
                    return rule.ignores
        return False

    def _rules_of_folder(self, folder: Names) -> list[Rule]:
        if folder not in self._rules:
            self._rules[folder] = self._read_rules((*folder, ".gitignore"))
        return self._rules[folder]

    def _read_rules(self, names: Names) -> list[Rule]:
        path = self._root.real.joinpath(*names)
        # As git, which reads no rules through a link.
        if os.path.islink(path) or not os.path.isfile(path):
            return []
        with self._root.open_file(names) as file:
            text = file.read(GITIGNORE_BYTES + 1)
        if len(text) > GITIGNORE_BYTES:
            raise RequestError(
                "{path} is larger than {most} bytes.",
                "too_many_rules",
                path=printable_path(names),
                most=GITIGNORE_BYTES,
            )
        return _parse_rules(os.fsdecode(text.removeprefix(_UTF8_MARK)).split("\n"))


def _parse_rules(lines: Sequence[str]) -> list[Rule]:
    """Return the rules in the lines, the last one first."""
    from pathspec import GitIgnoreSpec  # not needed to answer `initialize`

    rules: list[Rule] = []
    for line in map(_limit_wildcards, lines):
        try:
            patterns = cast("list[Any]", list(GitIgnoreSpec.from_lines([line]).patterns))
        except (ValueError, re.error):
            continue  # git skips a line that is no rule, too
        is_inside = line.endswith("/**")
        rules += [Rule(each.regex, each.include, is_inside) for each in patterns if each.include is not None]
    return rules[::-1]


def _limit_wildcards(line: str) -> str:
    """Return a rule that cannot match endlessly, as one of a hostile repository could.

    A rule with too many wildcards is cut to one that ignores more, never less.
    """
    line = line.removesuffix("\r")
    if line.endswith("**/"):
        line += "*/"  # the same folders, written so that each is matched by its own name
    stars = [star.start() for star in re.finditer(r"\*+", line)]
    stars_by_name = Counter(line.count("/", 0, star) for star in stars)
    if len(stars) <= IGNORE_STARS and max(stars_by_name.values(), default=0) <= IGNORE_STARS_IN_NAME:
        return line
    if line.startswith("!"):
        return ""
    end = stars[IGNORE_STARS_IN_NAME - 1]
    if special := re.search(r"[\[\\]", line):
        end = special.start()
    return line[:end] + "*"
