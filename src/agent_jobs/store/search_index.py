"""Find jobs by words of their titles, prompts and outputs, with SQLite's FTS5.

The index is made when it is first asked, and then reads the jobs that ended since: a job's end costs nothing for it.

Hits are the newest jobs, so that a search need not rank all that match. FTS5 reads exact words from the newest job on
and stops at the limit, but it reads every job with a word's beginning first. A table of all words therefore completes
the beginnings.
"""

import re
import sqlite3
from collections.abc import Awaitable, Callable
from typing import Any

from agent_jobs.errors import StoreError
from agent_jobs.jobs.queries import MATCH_BEGIN, MATCH_END, SearchHit
from agent_jobs.jobs.status import ACTIVE, TERMINAL, Status
from agent_jobs.store.database import Database, Row, StorePart, Transaction
from agent_jobs.store.owner_scope import OwnerScope
from agent_jobs.store.records import JOB_WITHOUT_TEXTS, read_job
from agent_jobs.store.rows import escape_like, format_statuses
from agent_jobs.store.schema import SEARCH_INDEX, SEARCH_TERMS
from agent_jobs.text import truncate

#: Jobs that one change adds to the index: other processes can write between two of them.
INDEXED_AT_ONCE = 500
#: Words around a match in a passage.
PASSAGE_WORDS = 16
#: Characters of the beginning of a prompt that are shown in place of a passage.
PASSAGE_CHARS = 120
#: Words of a search beyond this number narrow nothing.
MAX_WORDS = 20
_QUOTED_OR_WORD = re.compile(r'"([^"]+)"|(\S+)')
#: Words that complete a word's beginning; from this many on, few jobs have each, and FTS5 is as fast by itself.
MAX_COMPLETIONS = 100
_HAS_LETTERS = re.compile(r"\w")
#: The last word of a phrase, if only ASCII characters decide how the tokenizer reads it.
_LAST_WORD = re.compile(r"(?:^|(?<=[\x00-\x7f])(?<![A-Za-z0-9]))([A-Za-z0-9]+)[^\w\x80-\U0010ffff]*$")

#: Above every other character, so that all words with a beginning are below the beginning and this.
_LAST_CHARACTER = "\U0010ffff"
_TOKENIZER = "unicode61 remove_diacritics 2"
#: The words of some jobs, by which all words are kept up to date; and each place where the index has a word.
_TEXTS, _TERMS, _PLACES = "temp.changed_text", "temp.changed_term", "temp.search_place"
_CREATE = (
    f"DROP TABLE IF EXISTS {SEARCH_INDEX}",
    f"""CREATE VIRTUAL TABLE {SEARCH_INDEX} USING fts5(
            title, prompt, output, content = 'searchable', content_rowid = 'number', tokenize = '{_TOKENIZER}')""",
    f"CREATE TABLE {SEARCH_TERMS} (term TEXT PRIMARY KEY) STRICT, WITHOUT ROWID",
    "UPDATE job SET in_search = 0 WHERE in_search = 1",
)
_CREATE_TEXTS = (
    f"""CREATE VIRTUAL TABLE IF NOT EXISTS {_TEXTS} USING fts5(
            title, prompt, output, content = '', tokenize = '{_TOKENIZER}')""",
    f"CREATE VIRTUAL TABLE IF NOT EXISTS {_TERMS} USING fts5vocab(temp, changed_text, row)",
    f"CREATE VIRTUAL TABLE IF NOT EXISTS {_PLACES} USING fts5vocab(main, {SEARCH_INDEX}, instance)",
)
#: Finds the passages of some jobs by their ids, given the phrases, a limit and the jobs' statuses.
FindPassages = Callable[[Transaction, list[str], int, frozenset[Status], OwnerScope], Awaitable[dict[str, str]]]

_EXISTS = f"SELECT 1 FROM sqlite_schema WHERE name = '{SEARCH_TERMS}'"


class SearchIndex(StorePart):
    """`SearchRecords` on SQLite."""

    async def search(self, words: str, limit: int, statuses: frozenset[Status] = frozenset()) -> list[SearchHit]:
        phrases = split_phrases(words)
        if not phrases:
            return []
        await self._update_index()
        return await find_hits(self._db, phrases, limit, statuses, _find_indexed, self._scope)

    async def count_unindexed(self) -> int:
        rows = await self._db.fetch(
            f"SELECT COUNT(*) AS n FROM job WHERE in_search = 0 AND finished_at IS NOT NULL AND {self._scope.job}",
            **self._scope.values,
        )
        return rows[0]["n"]

    async def _update_index(self) -> None:
        """Add the jobs that ended since the last search.

        Raises:
            StoreError: This SQLite has no FTS5.
        """
        if not await self._db.fetch(_EXISTS):
            await self._create_index()
        while await self._db.fetch("SELECT 1 FROM job WHERE in_search = 0 AND finished_at IS NOT NULL LIMIT 1"):
            await self._db.change(_index_some)

    async def _create_index(self) -> None:
        async def create(transaction: Transaction) -> None:
            if await transaction.execute(_EXISTS):
                return  # another process made it meanwhile
            try:
                for statement in _CREATE:
                    await transaction.execute(statement)
            except sqlite3.OperationalError as error:
                if "no such module" in str(error):
                    raise StoreError(
                        "This Python's SQLite cannot search texts, since it has no FTS5.", "no_full_text_search"
                    ) from error
                raise

        await self._db.change(create)


async def remove_from_search(transaction: Transaction, job_id: str) -> None:
    """Take a job's texts out of the index, before one of them changes or is deleted."""
    if not await transaction.execute("SELECT 1 FROM job WHERE id = :id AND in_search = 1", id=job_id):
        return
    if await transaction.execute(_EXISTS):
        await _split_texts(transaction, [job_id])
        await transaction.execute(
            f"""INSERT INTO {SEARCH_INDEX} ({SEARCH_INDEX}, rowid, title, prompt, output)
                SELECT 'delete', number, title, prompt, output FROM searchable
                WHERE number = (SELECT number FROM prompt WHERE job_id = :id)""",
            id=job_id,
        )
        # A deleted job may have been the only one with a word, such as a password.
        await transaction.execute(
            f"""DELETE FROM {SEARCH_TERMS} WHERE term IN (SELECT term FROM {_TERMS})
                AND NOT EXISTS (SELECT 1 FROM {_PLACES} WHERE {_PLACES}.term = {SEARCH_TERMS}.term)"""
        )
        await _drop_texts(transaction)
    await transaction.execute("UPDATE job SET in_search = 0 WHERE id = :id", id=job_id)


def split_phrases(words: str) -> list[str]:
    """Return the words and the "quoted phrases" of a search; signs without a letter or digit find nothing."""
    found = [quoted or word for quoted, word in _QUOTED_OR_WORD.findall(words)]
    return [phrase for phrase in found if _HAS_LETTERS.search(phrase)][:MAX_WORDS]


async def _index_some(transaction: Transaction) -> None:
    rows = await transaction.execute(
        "SELECT id FROM job WHERE in_search = 0 AND finished_at IS NOT NULL ORDER BY finished_at LIMIT :limit",
        limit=INDEXED_AT_ONCE,
    )
    ids = [row["id"] for row in rows]
    await _split_texts(transaction, ids)
    await _index_texts(transaction, SEARCH_INDEX, ids)
    await transaction.execute(f"INSERT OR IGNORE INTO {SEARCH_TERMS} (term) SELECT term FROM {_TERMS}")
    await _drop_texts(transaction)
    await transaction.execute("UPDATE job SET in_search = 1 WHERE id IN (:*ids)", ids=ids)


async def _split_texts(transaction: Transaction, job_ids: list[str]) -> None:
    """Fill `_TERMS` with the words of these jobs."""
    for statement in _CREATE_TEXTS:
        await transaction.execute(statement)
    await _index_texts(transaction, _TEXTS, job_ids)


async def _drop_texts(transaction: Transaction) -> None:
    await transaction.execute(f"INSERT INTO {_TEXTS} (changed_text) VALUES ('delete-all')")


async def _index_texts(transaction: Transaction, table: str, job_ids: list[str]) -> None:
    await transaction.execute(
        f"""INSERT INTO {table} (rowid, title, prompt, output)
            SELECT number, title, prompt, output FROM searchable
            WHERE number IN (SELECT number FROM prompt WHERE job_id IN (:*ids))""",
        ids=job_ids,
    )


async def _find_indexed(
    transaction: Transaction, phrases: list[str], limit: int, statuses: frozenset[Status], scope: OwnerScope
) -> dict[str, str]:
    """Return passages by the ids of the newest ended jobs that have all phrases; a phrase may be a word's beginning."""
    has_status = "TRUE"
    if statuses != TERMINAL:
        has_status = f"EXISTS (SELECT 1 FROM job WHERE id = prompt.job_id AND status IN {format_statuses(statuses)})"
    conditions = [await _write_condition(transaction, phrase) for phrase in phrases]
    rows = await transaction.execute(
        f"""SELECT prompt.job_id AS id,
                   snippet({SEARCH_INDEX}, -1, :match_begin, :match_end, '…', {PASSAGE_WORDS}) AS passage
            FROM {SEARCH_INDEX} JOIN prompt ON prompt.number = {SEARCH_INDEX}.rowid
            WHERE {SEARCH_INDEX} MATCH :phrases AND {has_status} AND {scope.part}
            ORDER BY {SEARCH_INDEX}.rowid DESC LIMIT :limit""",
        match_begin=MATCH_BEGIN,
        match_end=MATCH_END,
        phrases=" AND ".join(conditions),
        limit=limit,
        **scope.values,
    )
    return {row["id"]: row["passage"] for row in rows}


async def _write_condition(transaction: Transaction, phrase: str) -> str:
    """Return the FTS5 expression of a phrase whose last word may be the beginning of one."""
    last_word = _LAST_WORD.search(phrase)
    if last_word is None:
        return f"{_quote_phrase(phrase)}*"
    begin = last_word[1].lower()
    rows = await transaction.execute(
        f"SELECT term FROM {SEARCH_TERMS} WHERE term >= :begin AND term < :end LIMIT {MAX_COMPLETIONS}",
        begin=begin,
        end=f"{begin}{_LAST_CHARACTER}",
    )
    if not 0 < len(rows) < MAX_COMPLETIONS:
        return f"{_quote_phrase(phrase)}*"
    head = phrase[: last_word.start(1)]
    completed = [_quote_phrase(f"{head}{row['term']}") for row in rows]
    return f"({' OR '.join(completed)})"


def _quote_phrase(phrase: str) -> str:
    escaped = phrase.replace('"', '""')
    return f'"{escaped}"'


async def find_hits(
    db: Database,
    phrases: list[str],
    limit: int,
    statuses: frozenset[Status],
    find_ended: FindPassages,
    scope: OwnerScope,
) -> list[SearchHit]:
    """Return the newest jobs that have all phrases, with their passages; `find_ended` asks the database's own index."""
    wanted = statuses or frozenset(Status)

    async def find_rows(transaction: Transaction) -> list[tuple[Row, str]]:
        found: dict[str, str] = {}
        if active := wanted & ACTIVE:
            found |= await find_active(transaction, phrases, limit, active, scope)
        if ended := wanted & TERMINAL:
            found |= await find_ended(transaction, phrases, limit, ended, scope)
        rows = await transaction.execute(
            f"""{JOB_WITHOUT_TEXTS} WHERE job.id IN (:*ids)
                ORDER BY job.created_at DESC, job.id LIMIT :limit""",
            ids=list(found),
            limit=limit,
        )
        return [(row, found[row["id"]]) for row in rows]

    hits = await db.query(find_rows)
    return [SearchHit(read_job(row, db.damage_error), passage) for row, passage in hits]


async def find_active(
    transaction: Transaction, phrases: list[str], limit: int, statuses: frozenset[Status], scope: OwnerScope
) -> dict[str, str]:
    """Return the beginnings of prompts by the ids of the active jobs whose prompts have all phrases."""
    contained = " AND ".join(f"lower(text) LIKE lower(:phrase_{number}) ESCAPE '\\'" for number in range(len(phrases)))
    values: dict[str, Any] = {f"phrase_{number}": f"%{escape_like(phrase)}%" for number, phrase in enumerate(phrases)}
    rows = await transaction.execute(
        f"""SELECT id, text FROM job JOIN prompt ON job_id = id WHERE status IN {format_statuses(statuses)}
            AND {contained} AND {scope.job} ORDER BY created_at DESC LIMIT :limit""",
        **values,
        limit=limit,
        **scope.values,
    )
    return {row["id"]: truncate(" ".join(row["text"].split()), PASSAGE_CHARS) for row in rows}
