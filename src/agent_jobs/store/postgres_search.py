"""Find jobs by words of their titles, prompts and outputs, with PostgreSQL's text search.

The words of a job are kept when it is first searched after its end: its end costs nothing for them.

Hits are the newest jobs. The index returns all that match, in no order, which takes long for common words. The newest
jobs are therefore read first, without the index: common words are found there.
"""

from agent_jobs.jobs.queries import MATCH_BEGIN, MATCH_END, SearchHit
from agent_jobs.jobs.status import Status
from agent_jobs.store.database import StorePart, Transaction
from agent_jobs.store.owner_scope import OwnerScope
from agent_jobs.store.rows import format_statuses
from agent_jobs.store.search_index import PASSAGE_WORDS, find_hits, split_phrases

#: Jobs that one change indexes.
INDEXED_AT_ONCE = 200
#: The newest jobs that are read without the index, unless the limit needs more.
NEWEST = 500
#: Jobs that are read so for each hit at most: if fewer match, the index returns few.
NEWEST_PER_HIT = 5
#: Characters of a prompt and of an output: PostgreSQL refuses words of more than 1 MiB together.
INDEXED_CHARS = 80_000
_TEXT = f"title || ' ' || left(prompt, {INDEXED_CHARS}) || ' ' || left(output, {INDEXED_CHARS})"
#: Words without stemming: prompts are in many languages.
_WORDS = f"to_tsvector('simple', {_TEXT})"
#: The two ways to find the words of jobs. OFFSET 0 keeps the planner, which misjudges words, from choosing another.
_ITS_WORDS = "(SELECT job_id, words FROM job_words WHERE job_id = job.id OFFSET 0) AS its ON words @@ ({query})"
_BY_INDEX = "(SELECT job_id FROM job_words WHERE words @@ ({query}) OFFSET 0) AS its ON job_id = job.id"
_PASSAGE_OPTIONS = (
    f"StartSel={MATCH_BEGIN}, StopSel={MATCH_END}, MaxWords={PASSAGE_WORDS}, MinWords={PASSAGE_WORDS // 2}"
)


class PostgresSearch(StorePart):
    """`SearchRecords` on PostgreSQL."""

    async def search(self, words: str, limit: int, statuses: frozenset[Status] = frozenset()) -> list[SearchHit]:
        phrases = split_phrases(words)
        if not phrases:
            return []
        while await self._db.fetch("SELECT 1 FROM job WHERE NOT in_search AND finished_at IS NOT NULL LIMIT 1"):
            await self._db.change(_keep_words)
        return await find_hits(self._db, phrases, limit, statuses, _find_ended, self._scope)

    async def count_unindexed(self) -> int:
        rows = await self._db.fetch(
            f"SELECT COUNT(*) AS n FROM job WHERE NOT in_search AND finished_at IS NOT NULL AND {self._scope.job}",
            **self._scope.values,
        )
        return rows[0]["n"]


async def _keep_words(transaction: Transaction) -> None:
    """Keep the words of some jobs that ended; other processes do the others at the same time."""
    await transaction.execute(
        f"""WITH chosen AS MATERIALIZED (
                SELECT id FROM job WHERE NOT in_search AND finished_at IS NOT NULL
                ORDER BY finished_at LIMIT {INDEXED_AT_ONCE} FOR UPDATE),
            kept AS (
                INSERT INTO job_words (job_id, words)
                SELECT job_id, {_WORDS} FROM searchable JOIN prompt USING (number)
                WHERE job_id IN (SELECT id FROM chosen)
                ON CONFLICT (job_id) DO UPDATE SET words = excluded.words)
            UPDATE job SET in_search = TRUE WHERE id IN (SELECT id FROM chosen)"""
    )


async def _find_ended(
    transaction: Transaction, phrases: list[str], limit: int, statuses: frozenset[Status], scope: OwnerScope
) -> dict[str, str]:
    """Return passages by the ids of the newest ended jobs that have all phrases; a phrase may be a word's beginning."""
    newest = f"""(SELECT * FROM job WHERE status IN {format_statuses(statuses)} AND {scope.job}
                  ORDER BY created_at DESC LIMIT {max(NEWEST, limit * NEWEST_PER_HIT)}) AS job"""
    found = await _find_in(transaction, f"{newest} JOIN LATERAL {_ITS_WORDS}", phrases, limit, statuses, scope)
    if len(found) == limit:
        return found
    return await _find_in(transaction, f"job JOIN {_BY_INDEX}", phrases, limit, statuses, scope)


async def _find_in(
    transaction: Transaction,
    jobs: str,
    phrases: list[str],
    limit: int,
    statuses: frozenset[Status],
    scope: OwnerScope,
) -> dict[str, str]:
    """Return passages by the ids of the newest of these jobs that have all phrases."""
    values = {f"phrase_{number}": phrase for number, phrase in enumerate(phrases)}
    query = " && ".join(f"({_phrase_query(name)})" for name in values)
    rows = await transaction.execute(
        f"""WITH found AS MATERIALIZED (
                SELECT job_id FROM {jobs.format(query=query)}
                WHERE status IN {format_statuses(statuses)} AND {scope.job}
                ORDER BY job.created_at DESC LIMIT :limit)
            SELECT id, CASE WHEN starts_with(text, words) THEN '' ELSE '…' END || passage ||
                       CASE WHEN right(text, length(words)) = words THEN '' ELSE '…' END AS passage
            FROM (SELECT id, text, passage, translate(passage, :marks, '') AS words
                  FROM (SELECT job_id AS id, {_TEXT} AS text,
                               ts_headline('simple', {_TEXT}, {query}, :options) AS passage
                        FROM found JOIN prompt USING (job_id) JOIN searchable USING (number)) AS headline) AS cut""",
        **values,
        limit=limit,
        options=_PASSAGE_OPTIONS,
        marks=MATCH_BEGIN + MATCH_END,
        **scope.values,
    )
    return {row["id"]: row["passage"] for row in rows}


def _phrase_query(name: str) -> str:
    """Return the query of one phrase, whose last word may be the beginning of one."""
    return f"COALESCE(NULLIF(phraseto_tsquery('simple', :{name})::text, '') || ':*', '')::tsquery"
