"""The payloads of notifications, as Glare's consumers read them."""

from diptych_artifacts.db.artifacts import ArtifactRow
from diptych_artifacts.wire.artifact import timestamp


def artifact(row: ArtifactRow) -> dict[str, object]:
    """The payload of an `artifact.artifact:*` event. Source: Glare 5.0.1, its notifier."""
    activated_at = row["activated_at"]
    return {
        "type": row["type_name"],
        "id": row["id"],
        "description": row["description"],
        "name": row["name"],
        "version": row["version"],
        "visibility": row["visibility"],
        "status": row["status"],
        "created_at": timestamp(row["created_at"]),
        "updated_at": timestamp(row["updated_at"]),
        "activated_at": None if activated_at is None else timestamp(activated_at),
        "owner": row["owner"],
    }
