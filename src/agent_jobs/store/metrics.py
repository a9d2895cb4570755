"""Count the metrics for an operator: jobs by status and owner, due jobs, the cost of the day, and connections."""

from agent_jobs.store.database import StorePart, Transaction
from agent_jobs.store.rows import ACTIVE_SQL
from agent_jobs.store.team_records import OwnerMetrics, StoreMetrics

_ACTIVE = f"SELECT owner, status, COUNT(*) AS jobs FROM job WHERE status IN {ACTIVE_SQL} GROUP BY owner, status"
_COSTS = """SELECT owner, SUM(COALESCE(cost_usd, cost_before_usd, 0.0)) AS usd FROM job WHERE created_at >= :since
            GROUP BY owner"""
_COUNTS = "SELECT status, jobs FROM tally WHERE jobs > 0"


class MetricsQueries(StorePart):
    """`MetricsRecords` on any database."""

    async def read_metrics(self, base_url: str, since: float) -> StoreMetrics:
        async def read(transaction: Transaction) -> StoreMetrics:
            active = [(row[0], row[1], row[2]) for row in await transaction.execute(_ACTIVE)]
            costs = [(row[0], row[1]) for row in await transaction.execute(_COSTS, since=since)]
            counts = {row["status"]: row["jobs"] for row in await transaction.execute(_COUNTS)}
            due = await transaction.execute("SELECT MIN(next_at) AS at FROM job WHERE next_at IS NOT NULL")
            hook = await transaction.execute(
                "SELECT MAX(received_at) AS at FROM webhook WHERE base_url = :base_url", base_url=base_url
            )
            owners = OwnerMetrics(active, costs)
            return StoreMetrics(owners, counts, due[0]["at"], hook[0]["at"], self._db.count_connections())

        return await self._db.query(read)
