"""Finding a namespace that the caller may see, and checking a rule on it; no routes."""

from diptych_common.database import Connection
from diptych_common.errors import Forbidden, NotFound
from diptych_common.identity import Identity

from diptych_images.api.resources import Resources, is_admin, refuse_anonymous
from diptych_images.db.metadefs import namespaces
from diptych_images.db.metadefs.namespaces import Kind, NamespaceRow


async def visible(
    connection: Connection, name: str, res: Resources, who: Identity, *kinds: Kind
) -> NamespaceRow:
    """The namespace with these kinds of what it holds; NotFound if the caller may see none."""
    row = await namespaces.get(
        connection,
        _possible(name),
        *kinds,
        project_id=who.project_id,
        is_admin=is_admin(res, who),
    )
    if row is None:
        raise _not_found(name)
    return row


async def locked(connection: Connection, name: str, res: Resources, who: Identity) -> NamespaceRow:
    """The namespace alone, for a change: as `visible`, and locked until the transaction's end."""
    refuse_anonymous(who)
    row = await namespaces.get_for_update(
        connection, _possible(name), project_id=who.project_id, is_admin=is_admin(res, who)
    )
    if row is None:
        raise _not_found(name)
    return row


def target(row: NamespaceRow) -> dict[str, object]:
    """What policy rules may ask about a namespace and what it holds."""
    return {
        "namespace": row["namespace"],
        "visibility": row["visibility"],
        "owner": row["owner"],
        "project_id": row["owner"],
        "protected": row["protected"],
    }


def require(res: Resources, rule: str, who: Identity, row: NamespaceRow) -> None:
    """Check a rule: NotFound if the caller may not even get the namespace, else Forbidden."""
    about = target(row)
    try:
        res.policy.require(rule, who, about)
    except Forbidden:
        # A token of the wrong scope is told so; it finds nothing out about the namespace by it.
        is_about_the_token = res.policy.refuses_scope(rule, who)
        if not is_about_the_token and not res.policy.allows("get_metadef_namespace", who, about):
            raise _not_found(row["namespace"]) from None
        raise


def refuse_protected(row: NamespaceRow) -> None:
    """Raise Forbidden if nothing may be deleted here, not by administrators either."""
    if row["protected"]:
        raise Forbidden(f"Namespace {row['namespace']} is protected.")


def _possible(name: str) -> str:
    if "\0" in name:
        raise _not_found(name)
    return name


def _not_found(name: str) -> NotFound:
    return NotFound(f"There is no namespace {name}.")
