"""Objects in OpenStack Swift: a manifest under the image's id, its segments beside it.

`layout` has the names, `references` and `auth` say as whom, `client` makes the requests.
"""

from diptych_store.drivers.swift.multi_tenant import MultiTenantSwiftStore
from diptych_store.drivers.swift.store import SwiftStore

__all__ = ["MultiTenantSwiftStore", "SwiftStore"]
