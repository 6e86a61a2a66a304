"""Catalogues of images by the thousand, of which one project sees always the same ones."""

from hashlib import md5

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

# The numbers 1 to :seen are what project :me sees, and never change: three fifths are public images
# of the operator, among them one with the tag `amphora`; a fifth are its own ones; a fifth are
# offered to it. Numbers above are private, shared and community images of 2,000 other projects,
# that carry the same names, tags and properties. Of all of them some are hidden and some deleted.
_FILL = """
INSERT INTO images (id, name, status, visibility, owner, disk_format, container_format, size,
    checksum, os_hash_value, os_hidden, tags, properties, created_at, updated_at, deleted_at)
SELECT
    ('00000000-0000-4000-8000-' || lpad(to_hex(n), 12, '0'))::uuid,
    CASE WHEN n % 50 > 0 THEN 'name-' || n * 7919 % 30000 END,
    CASE WHEN n % 20 = 11 THEN 'deleted' WHEN n % 97 = 0 THEN 'queued' ELSE 'active' END,
    CASE WHEN n * 5 <= :seen * 3 THEN 'public'
        WHEN n <= :seen THEN (ARRAY['shared', 'private'])[CASE WHEN n * 5 > :seen * 4 THEN 1
            ELSE 1 + n % 2 END]
        ELSE (ARRAY['shared', 'private', 'private', 'community'])[1 + n % 4] END,
    CASE WHEN n * 5 <= :seen * 3 THEN 'operator' WHEN n * 5 <= :seen * 4 THEN :me
        ELSE 'project-' || n * 104729 % 2000 END,
    'qcow2', 'bare', n * 1000, md5(n::text), md5(n::text), n % 20 = 7,
    CASE WHEN n * 5 = :seen * 2 THEN ARRAY['amphora', 'linux']
        WHEN n % 3 = 0 THEN ARRAY['linux'] ELSE '{}' END,
    jsonb_build_object('os_distro', (ARRAY['ubuntu', 'debian', 'fedora'])[1 + n % 3],
        'serial', n::text),
    -- Those that :me sees lie among the others in time.
    timestamptz '2020-01-01' + n * 7919 % 1000003 * interval '1 minute',
    timestamptz '2020-01-01' + n * 7919 % 1000003 * interval '1 minute',
    CASE WHEN n % 20 = 11 THEN now() END
FROM generate_series(CAST(:first AS bigint), :last) n
"""
_OFFER = """
INSERT INTO image_members (image_id, member, status)
SELECT id, CASE WHEN owner LIKE 'project-%' AND size BETWEEN :seen * 800 + 1 AND :seen * 1000
        THEN :me ELSE 'project-' || size / 1000 % 2000 END,
    CASE WHEN size % 5000 = 0 THEN 'pending' ELSE 'accepted' END
FROM images WHERE visibility = 'shared' AND size BETWEEN :first * 1000 AND :last * 1000
"""
_PLACE = """
INSERT INTO image_locations (image_id, store, url, status)
SELECT id, 'fast', 'file:///images/' || id, 'active'
FROM images WHERE status = 'active' AND size BETWEEN :first * 1000 AND :last * 1000
"""


def image_id(number: int) -> str:
    """The id of the image with this number."""
    return f"00000000-0000-4000-8000-{number:012x}"


def image_name(number: int) -> str:
    """Its name, which others have too; every fiftieth has none."""
    return f"name-{number * 7919 % 30000}"


def image_hash(number: int) -> str:
    """Its checksum and `os_hash_value`."""
    return md5(str(number).encode()).hexdigest()


async def fill(connection: AsyncConnection, first: int, last: int, *, me: str, seen: int) -> None:
    """Make the images of these numbers; `seen`, a multiple of 5, are there for project `me`."""
    values = {"first": first, "last": last, "seen": seen, "me": me}
    for statement in (_FILL, _OFFER, _PLACE):
        bound = text(statement)
        await connection.execute(bound, {name: values[name] for name in bound.compile().params})
