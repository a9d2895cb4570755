"""Store files in the database for all replicas of a team server: uploads, and files that runs made."""

from agent_jobs.store.database import StorePart, Transaction
from agent_jobs.store.team_records import ShelvedFile, StoredFile


class TeamFiles(StorePart):
    """`FileRecords` on any database."""

    async def add_shelved_file(self, file: ShelvedFile, now: float, *, since: float, room: int) -> bool:
        async def add(transaction: Transaction) -> bool:
            await transaction.execute("DELETE FROM shelf WHERE created_at <= :since", since=since)
            owner = self._scope.owner or ""
            used = await transaction.execute(
                "SELECT COALESCE(SUM(bytes), 0) AS bytes FROM shelf WHERE owner = :owner", owner=owner
            )
            if used[0]["bytes"] + len(file.data) > room:
                return False
            await transaction.execute(
                """INSERT INTO shelf (id, owner, name, bytes, created_at, data)
                   VALUES (:id, :owner, :name, :bytes, :now, :data)""",
                **file._asdict(),
                owner=owner,
                bytes=len(file.data),
                now=now,
            )
            return True

        return await self._db.change(add)

    async def find_shelved_file(self, file_id: str, since: float) -> StoredFile | None:
        rows = await self._db.fetch(
            f"""SELECT name, data FROM shelf WHERE id = :id AND created_at > :since
                AND {self._scope.condition("shelf")}""",
            id=file_id,
            since=since,
            **self._scope.values,
        )
        return next((StoredFile(**row) for row in rows), None)

    async def forget_shelved_files(self, before: float) -> None:
        await self._db.write("DELETE FROM shelf WHERE created_at <= :before", before=before)

    async def save_made_file(self, job_id: str, name: str, file_id: str, path: str, data: bytes) -> None:
        await self._db.write(
            f"""INSERT INTO made (job_id, name, path, bytes, file_id, data)
               SELECT id, :name, :path, :bytes, :file_id, :data FROM job WHERE id = :id AND {self._scope.job}
               ON CONFLICT (job_id, name) DO NOTHING""",
            id=job_id,
            name=name,
            path=path,
            bytes=len(data),
            file_id=file_id,
            data=data,
            **self._scope.values,
        )

    async def find_made_file(self, file_id: str) -> StoredFile | None:
        rows = await self._db.fetch(
            f"""SELECT name, data FROM made WHERE file_id = :file_id AND file_id <> '' AND data IS NOT NULL
                AND {self._scope.part}""",
            file_id=file_id,
            **self._scope.values,
        )
        return next((StoredFile(**row) for row in rows), None)
