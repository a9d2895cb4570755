"""Draw what a command shows on a terminal as SVG files, one for light pages and one for dark ones."""

import re
import tempfile
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import TerminalTheme
from rich.text import Text
from terminals import Terminal

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs/pictures"
COLUMNS = 88  # as wide as a README column shows without scaling it down
#: The font that rich loads from the web. A page that shows the picture may load nothing.
WEB_FONT = re.compile(r"\s*@font-face \{.*?\}", re.DOTALL)
FONTS = "ui-monospace, SFMono-Regular, Menlo, Consolas, monospace"
#: The sixteen colours of a terminal, the eight normal ones first, as GitHub's own pages show them.
DARK = "484f58 ff7b72 3fb950 d29922 58a6ff bc8cff 39c5cf b1bac4 6e7681 ffa198 56d364 e3b341 79c0ff d2a8ff 56d4dd ffffff"
LIGHT = (
    "24292f cf222e 116329 7d4e00 0969da 8250df 1b7c83 6e7781 57606a a40e26 1a7f37 633c01 218bff a475f9 3192aa 8c959f"
)


def read_colors(written: str) -> list[tuple[int, int, int]]:
    """Return the red, green and blue of each colour of a line."""
    return [(int(color[:2], 16), int(color[2:4], 16), int(color[4:], 16)) for color in written.split()]


THEMES = {
    "dark": TerminalTheme((13, 17, 23), (230, 237, 243), read_colors(DARK)[:8], read_colors(DARK)[8:]),
    "light": TerminalTheme((255, 255, 255), (31, 35, 40), read_colors(LIGHT)[:8], read_colors(LIGHT)[8:]),
}


def draw(title: str, raw: str, theme: TerminalTheme) -> str:
    """Return an SVG picture of a terminal window with this title, on which `raw` was written."""
    with open("/dev/null", "w", encoding="utf-8") as nowhere:
        console = Console(record=True, width=COLUMNS, file=nowhere, force_terminal=True, color_system="standard")
        console.print(Text.from_ansi(raw.replace("\r\n", "\n").rstrip()), soft_wrap=False)
    picture = console.export_svg(title=title, theme=theme, unique_id="terminal")
    return WEB_FONT.sub("", picture).replace("Fira Code, monospace", FONTS)


def main() -> None:
    """Run the demo on a terminal and write its pictures."""
    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as home:
        shown = Terminal("", Path(home) / "jobs").show("demo", columns=COLUMNS)
    if shown.returncode:
        raise SystemExit(f"The demo failed:\n{shown.text}")
    for name, theme in THEMES.items():
        (FOLDER / f"demo-{name}.svg").write_text(draw("agent-jobs demo", shown.raw, theme), encoding="utf-8")


if __name__ == "__main__":
    main()
