"""The help of the commands: their groups, examples, and a form that breaks no words."""

import textwrap
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain

import click

#: The address of the documentation; pyproject.toml has it under [project.urls].
DOCUMENTATION = "https://github.com/OWNER/agent-jobs/tree/main/docs"
#: A longer line is hard to read, also on a terminal that has room for it.
MAX_COLUMNS = 100
#: From this width on, terms of a list may have `WIDE_TERM_COLUMNS`.
WIDE_COLUMNS = 70
WIDE_TERM_COLUMNS = 30
#: On a narrow terminal, a longer term is on a line of its own, so that its description has room.
NARROW_TERM_COLUMNS = 18

#: The commands by group, in the order of the help, each with the first sentence of its help. Printing them from here
#: imports no command. A test compares the sentences, and fails for a command without a group.
GROUPS: Mapping[str, Mapping[str, str]] = {
    "Start jobs": {
        "run": "Start a job, wait for it and print the answer.",
        "start": "Start a job and print its id.",
        "ask": "Ask a follow-up question about a finished job, wait and print the answer.",
        "retry": "Start a job again: with the same prompt, files, options and model.",
        "batch": "Run a job for each line of a file.",
    },
    "Follow jobs": {
        "list": "List jobs, newest first.",
        "ui": "Show your jobs in a browser.",
        "watch": "Watch jobs until they finish.",
        "show": "Show what a job was asked and what is stored about it.",
        "logs": "Show what happened to a job, line by line with times.",
        "result": "Print the result of a job: its text, or another part.",
        "search": "Find jobs by words of their titles, prompts and answers, newest first.",
        "reply": "Answer what a job asks for.",
        "cancel": "Cancel jobs, here and at the provider.",
        "adopt": "Assign a response id to a job whose start is unconfirmed.",
    },
    "Keep and count": {
        "stats": "Show how many jobs were started, their tokens and their cost.",
        "export": "Write jobs with prompt, answer, sources, cost and ids.",
        "delete": "Delete jobs with their prompts and answers.",
        "prune": "Delete old jobs, except those with unread results.",
    },
    "Set up": {
        "init": "Set up the key, the hosts and a first job.",
        "key": "Store the API key, show which one is used, check or delete it.",
        "install": "Add this server to a host's configuration.",
        "uninstall": "Remove this server from a host's configuration.",
        "doctor": "Check the setup and report problems.",
        "completion": "Complete commands, options and job ids in your shell.",
    },
    "Settings": {
        "config": "Show the settings and where they come from, or change the settings file.",
        "models": "List the models of the provider, with their prices.",
        "presets": "List the presets: requests with a name.",
        "notify": "Show where notices of jobs are sent.",
    },
    "Servers and tests": {
        "serve": "Serve MCP on stdin and stdout, or over HTTP.",
        "owner": "Show and set what the owners of a team server may use.",
        "token": "Make, list and revoke the tokens of a team server.",
        "audit": "Show who did what on a team server, oldest first.",
        "service": "Collect jobs in the background, also when no host is open.",
        "work": "Collect jobs until you stop the command.",
        "db": "Upgrade the tables of a PostgreSQL database, or show their version.",
        "import": "Move the jobs of a jobs.db into the PostgreSQL database.",
        "demo": "Show a job that outlives its killed server.",
        "emulator": "Serve an emulated Responses API.",
    },
}
#: Heading of commands without a group.
OTHER_GROUP = "Other commands"

#: Examples by command. A test parses each of them, and a line fits a terminal of 60 columns.
EXAMPLES: Mapping[str, tuple[str, ...]] = {
    "run": (
        'agent-jobs run "What changed in HTTP/3?" --web-search',
        'git diff | agent-jobs run "Review this" --preset review',
    ),
    "start": (
        'agent-jobs start "Compare SQLite and DuckDB"',
        'agent-jobs start "Who builds heat pumps?" --web-search',
    ),
    "batch": ("echo '\"Name three rivers\"' > night.jsonl\nagent-jobs batch night.jsonl --out out",),
    "list": ("agent-jobs list --status open", "agent-jobs list --days 7 --status failed -q"),
    "watch": ("agent-jobs watch", "agent-jobs watch last"),
    "show": ("agent-jobs show last",),
    "ask": ('agent-jobs ask last "And in Austria?"',),
    "retry": ("agent-jobs retry last",),
    "logs": ("agent-jobs logs last", "agent-jobs logs last --follow"),
    "search": ("agent-jobs search heat pumps", 'agent-jobs search "heat pump" -n 3'),
    "stats": ("agent-jobs stats", "agent-jobs stats --by model --days 7"),
    "export": ("agent-jobs export last", "agent-jobs export --since 7d --out jobs"),
    "delete": ("agent-jobs delete last",),
    "key": ("agent-jobs key set", "agent-jobs key show"),
    "key set": ("agent-jobs key set", "pass show openai | agent-jobs key set"),
    "key show": ("agent-jobs key show",),
    "key check": ("agent-jobs key check",),
    "key delete": ("agent-jobs key delete",),
    "config set": ("agent-jobs config set model gpt-6.1-sol",),
    "config get": ("agent-jobs config get model",),
    "config unset": ("agent-jobs config unset model",),
    "config path": ("agent-jobs config path",),
    "service install": ("agent-jobs service install",),
    "service status": ("agent-jobs service status",),
    "service remove": ("agent-jobs service remove",),
    "notify": ("agent-jobs notify --test",),
    "service": ("agent-jobs service install", "agent-jobs service status"),
    "work": ("agent-jobs work",),
    "db": ("agent-jobs db upgrade", "agent-jobs db status"),
    "db upgrade": ("agent-jobs db upgrade", "agent-jobs db upgrade --check"),
    "db status": ("agent-jobs db status",),
    "import": ("agent-jobs import jobs.db --dry-run", "agent-jobs import ~/.local/share/agent-jobs"),
    "ui": ("agent-jobs ui", "agent-jobs ui --no-open --port 0"),
    "result": ("agent-jobs result last", "agent-jobs result last --part sources"),
    "reply": ("agent-jobs reply last", "agent-jobs reply last --approve-all"),
    "cancel": ("agent-jobs cancel last", "agent-jobs cancel --batch night"),
    "adopt": ("agent-jobs adopt last resp_0123456789abcdef",),
    "prune": ("agent-jobs prune --days 30",),
    "init": ("agent-jobs init", "agent-jobs init --host claude-code"),
    "install": ("agent-jobs install", "agent-jobs install cursor --dry-run"),
    "uninstall": ("agent-jobs uninstall claude-code",),
    "doctor": ("agent-jobs doctor",),
    "completion": ("agent-jobs completion install",),
    "completion install": ("agent-jobs completion install zsh",),
    "completion show": ("agent-jobs completion show fish",),
    "config": ("agent-jobs config --explain", "agent-jobs config set max_wait_s 45"),
    "models": ("agent-jobs models", "agent-jobs models --known"),
    "presets": ("agent-jobs presets",),
    "demo": ("agent-jobs demo",),
    "emulator": (
        "agent-jobs emulator --port 8787",
        "OPENAI_BASE_URL=http://127.0.0.1:8787/v1 \\\n  OPENAI_API_KEY=any agent-jobs run hello",
    ),
    "serve": ("claude mcp add agent-jobs -- agent-jobs serve", "agent-jobs serve --http --port 8000"),
    "owner": ("agent-jobs owner list", "agent-jobs owner set alice --daily-budget 20"),
    "owner list": ("agent-jobs owner list",),
    "owner show": ("agent-jobs owner show alice",),
    "owner set": (
        "agent-jobs owner set alice --daily-budget 20",
        "agent-jobs owner set alice --daily-budget default",
    ),
    "token": ("agent-jobs token add alice --expires 90d", "agent-jobs token list"),
    "token add": ("agent-jobs token add alice --expires 90d --note laptop",),
    "token list": ("agent-jobs token list",),
    "token revoke": ("agent-jobs token revoke tok_0123456789ab",),
    "audit": ("agent-jobs audit --since 2d --owner alice",),
}


class HelpFormatter(click.HelpFormatter):
    """Formats help without breaking a word, also not at a hyphen: options and names can be copied."""

    def write_text(self, text: str) -> None:
        """Write paragraphs, indented; one that begins with a backspace character keeps its lines."""
        lines = wrap_paragraphs(text, self.width - self.current_indent)
        self._write_indented(lines, self.current_indent)

    def write_dl(self, rows: Iterable[tuple[str, str]], col_max: int = 0, col_spacing: int = 2) -> None:
        """Write terms with their descriptions beside them, or below a term that is longer than the others."""
        rows = list(rows)
        most = col_max or self._find_term_columns()
        widths = [len(term) for term, _ in rows if len(term) <= most]
        column = max(widths, default=most) + col_spacing
        for term, description in rows:
            self._write_row(term, description, column, col_spacing)

    def _find_term_columns(self) -> int:
        if self.width < WIDE_COLUMNS:
            return NARROW_TERM_COLUMNS
        return WIDE_TERM_COLUMNS

    def _write_row(self, term: str, description: str, column: int, spacing: int) -> None:
        lines = list(wrap_paragraphs(description, self.width - self.current_indent - column))
        first = ""
        if lines and len(term) + spacing <= column:
            first = lines.pop(0)
        self._write_indented([f"{term:<{column}}{first}"], self.current_indent)
        self._write_indented(lines, self.current_indent + column)

    def _write_indented(self, lines: Iterable[str], indent: int) -> None:
        margin = " " * indent
        self.write("".join(f"{margin}{line}".rstrip() + "\n" for line in lines))


class HelpContext(click.Context):
    """A click context that formats help as this program does."""

    formatter_class = HelpFormatter


def wrap_paragraphs(text: str, width: int) -> Iterator[str]:
    """Yield the lines of a text, wrapped between words; one that begins with a backspace character keeps its lines."""
    for number, paragraph in enumerate(text.strip("\n").split("\n\n")):
        if number:
            yield ""
        first, _, rest = paragraph.lstrip("\n").partition("\n")
        if first.strip() == "\b":
            yield from rest.split("\n")
        else:
            yield from textwrap.wrap(" ".join(paragraph.split()), width, break_long_words=False, break_on_hyphens=False)


def add_help(command: click.Command, name: str) -> click.Command:
    """Give a command, and the commands below it, our form of help with their examples."""
    command.context_class = HelpContext
    if name in EXAMPLES:
        command.epilog = render_examples(EXAMPLES[name])
    if isinstance(command, click.Group):
        for part, below in command.commands.items():
            add_help(below, f"{name} {part}")
    return command


def render_examples(examples: Iterable[str]) -> str:
    """Return examples as a paragraph of a help text."""
    examples = list(examples)
    heading = "Examples:"
    if len(examples) == 1:
        heading = "Example:"
    lines = textwrap.indent("\n".join(examples), "  ")
    return f"\b\n{heading}\n{lines}"


def list_groups(names: Iterable[str]) -> Iterator[tuple[str, list[str]]]:
    """Yield the groups with those of the commands that exist; commands without a group come last."""
    existing = list(names)
    grouped = set(chain.from_iterable(GROUPS.values()))
    others = [name for name in existing if name not in grouped]
    for heading, commands in (*GROUPS.items(), (OTHER_GROUP, others)):
        members = [name for name in commands if name in existing]
        if members:
            yield heading, members


def find_summary(name: str) -> str | None:
    """Return what a command does in a sentence, None for a command without a group."""
    return next((commands[name] for commands in GROUPS.values() if name in commands), None)
