"""Run the command line of a chaos run; `scripts/chaos` calls it."""

import faulthandler
import json
import logging
import signal
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

import anyio
import click

from .databases import KINDS, open_job_database
from .drive import run
from .interrupts import press, summarize
from .judge import judge
from .plan import BURST, Options
from .table import format_table

_DEFAULT = Options()
#: Seconds for a run that reached its limit to stop and be judged; after that the process shows its stacks and ends.
GRACE_S = 60.0


@click.command()
@click.option("--seed", default=_DEFAULT.seed, show_default=True)
@click.option("--jobs", type=click.IntRange(min=1), default=_DEFAULT.jobs, show_default=True)
@click.option("--kills", type=click.IntRange(min=0), default=_DEFAULT.kills, show_default=True)
@click.option("--speed", type=click.FloatRange(1, 60), default=_DEFAULT.speed, show_default=True)
@click.option("--in-flight", type=click.IntRange(min=BURST), default=_DEFAULT.in_flight, show_default=True)
@click.option("--limit", "limit_s", type=click.FloatRange(min=1), default=_DEFAULT.limit_s, show_default=True)
@click.option("--database", type=click.Choice(KINDS), default=_DEFAULT.database, show_default=True)
@click.option(
    "--interrupts", type=click.IntRange(min=1), help="Press Ctrl-C this often in run and start, and do nothing else."
)
@click.option("--keep", type=click.Path(path_type=Path), help="Leave database, logs and record in this folder.")
def main(
    seed: int, jobs: int, kills: int, speed: float, in_flight: int, limit_s: float, database: str,
    interrupts: int | None, keep: Path | None,
) -> None:  # fmt: skip
    """Run jobs through servers that are killed, against an upstream with every fault; exit 1 if one is lost.

    Progress is on stderr: a line every ten seconds and at each kill. At its limit of seconds the run is stopped and
    shows what it was doing. `kill -USR1` shows the stacks of its threads at any time.
    """
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    if interrupts is not None:
        sys.exit(_interrupt(interrupts, seed))
    logging.getLogger("asyncio").setLevel(logging.ERROR)  # it warns about answers to killed servers
    options = Options(
        database=database, seed=seed, jobs=jobs, kills=kills, speed=speed, in_flight=in_flight, limit_s=limit_s
    )
    faulthandler.dump_traceback_later(limit_s + GRACE_S, exit=True)
    with tempfile.TemporaryDirectory() as folder:
        if keep is not None:
            keep.mkdir(parents=True)
        with open_job_database(database, keep or Path(folder)) as jobs_database:
            record = anyio.run(run, options, keep or Path(folder), jobs_database)
    if keep is not None:
        (keep / "record.json").write_text(json.dumps(asdict(record), default=str))
    judgement = judge(record)
    for line in format_table(record, judgement):
        click.echo(line)
    sys.exit(bool(judgement.violations))


def _interrupt(count: int, seed: int) -> bool:
    """Press Ctrl-C at random moments; return True if a promise was broken."""
    with tempfile.TemporaryDirectory() as folder:
        found = press(Path(folder), count=count, seed=seed)
    for line in (*found.violations, summarize(found, seed)):
        click.echo(line)
    return bool(found.violations)


if __name__ == "__main__":
    main()
