"""Making an image: what `POST /v2/images` and `POST /v2/tasks` have in common."""

from uuid import uuid4

from diptych_common.database import Connection
from diptych_common.errors import Conflict
from diptych_common.identity import Identity

from diptych_images import policies
from diptych_images.api.resources import Resources, is_admin
from diptych_images.db import images
from diptych_images.db.images import ImageRow
from diptych_images.notifications import emit
from diptych_images.quotas import Quota
from diptych_images.wire import image as wire
from diptych_images.wire.image import ImageCreate


def checked(body: object, res: Resources, who: Identity) -> ImageCreate:
    """What the body asks for, if it can be asked for, by this caller, and within the quotas.

    TooManyRequests if the caller's project makes images faster than `[create_limit]` allows.
    """
    new = wire.parse_create(
        body, res.schema, project_id=who.project_id, is_admin=is_admin(res, who)
    )
    about = {
        **new.properties,
        "owner": new.owner,
        "project_id": new.owner,
        # Glance asks about a private image where the client names no visibility, though the image
        # will be `shared`.
        "visibility": new.visibility or "private",
    }
    res.policy.require("add_image", who, about)
    policies.require_owner(res.policy, who, new.owner)
    if new.visibility == "public":
        res.policy.require("publicize_image", who, about)
    if new.visibility == "community":
        res.policy.require("communitize_image", who, about)
    for name in new.properties:
        if not res.protection.allows(who, "create", name):
            raise wire.reserved(name)
    wire.check_quotas(
        new.properties,
        new.tags,
        property_quota=res.settings.default.image_property_quota,
        tag_quota=res.settings.default.image_tag_quota,
    )
    # Last, for what is refused leaves nothing behind. Source: OSSN-0076.
    res.creations.take(who.project_id or who.user_id or "")
    return new


async def insert(connection: Connection, new: ImageCreate, quota: Quota) -> ImageRow:
    """Make the image, `queued`, in the caller's transaction; Conflict if its id was ever used.

    `quota` is the owner's; TooLarge beyond it.
    """
    await quota.require(connection, images=1)
    image_id = new.id or str(uuid4())
    row = await images.insert(connection, new.values(image_id))
    if row is None:
        raise Conflict(f"The id {image_id} is or was that of another image.")
    await emit(connection, "image.create", row)
    return row
