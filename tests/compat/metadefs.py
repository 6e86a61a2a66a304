"""The requests about metadata definitions. `$id` is the name of the exchange's own namespace."""

from collections.abc import Sequence
from itertools import chain
from typing import Any, Final

from tests.compat.form import EVERYBODY, Exchange, Step, Until, by_all

_ALL: Final = "/v2/metadefs/namespaces"
_IT: Final = f"{_ALL}/$id"

_SIZE: Final = {"title": "Size", "type": "integer", "minimum": 1, "operators": ["<in>"]}
_KIND: Final = {"title": "Kind", "description": "d", "type": "string", "enum": ["a", "b"]}
_ASSOCIATIONS: Final = [{"name": "OS::Nova::Server", "prefix": "hw_", "properties_target": "image"}]


def _namespace(**fields: Any) -> Step:
    """A new namespace of the owner's project, made by an administrator."""
    return Step(
        request=f"POST {_ALL}",
        by="admin",
        body={"namespace": "$id", "owner": "$owner", "visibility": "public", **fields},
    )


_HELD: Final = {
    "display_name": "Name",
    "description": "d",
    "resource_type_associations": _ASSOCIATIONS,
    "properties": {"size": _SIZE},
    "objects": [{"name": "disk", "description": "d", "required": ["kind"], "properties": {}}],
    "tags": [{"name": "fast"}],
}
# One after the other, so that there is an order of creation.
_MORE: Final = (
    *(Step(request=f"POST {_IT}/tags/{name}", by="admin") for name in ("linux", "bsd", "$second")),
    *(
        Step(request=f"POST {_IT}/objects", by="admin", body={"name": name})
        for name in ("cpu", "net")
    ),
)

NAMESPACES: Final[dict[str, Sequence[Step | Until]]] = {
    "namespace": (_namespace(),),
    "private namespace": (_namespace(visibility="private", **_HELD),),
    "full namespace": (_namespace(**_HELD),),
    "protected namespace": (_namespace(**_HELD, protected=True),),
    "large namespace": (_namespace(**_HELD), *_MORE),
    "two namespaces": (_namespace(), _namespace(namespace="$second")),
    "three namespaces": tuple(
        _namespace(
            namespace=name,
            visibility=visibility,
            resource_type_associations=[{"name": "$id", "prefix": "p_"}, *more],
        )
        for name, visibility, more in (
            ("$id", "public", []),
            ("$second", "private", [{"name": "$second"}]),
            ("$third", "public", []),
        )
    ),
}


def _asking(
    name: str, request: str, given: str = "full namespace", by: str = "admin", **rest: Any
) -> Exchange:
    """By an administrator, as only they change anything; compared with the namespace after it."""
    method, _, path = request.partition(" ")
    return Exchange(
        name=f"metadefs: {name}",
        request=f"{method} {_IT if path == '.' else path.replace('./', f'{_IT}/')}",
        given=given,
        after=f"GET {_IT}",
        by=by,
        **rest,
    )


def _by_all(
    name: str, request: str, *givens: str, personas: Sequence[str] = EVERYBODY, **rest: Any
) -> tuple[Exchange, ...]:
    return by_all(
        f"metadefs: {name}", request, *givens, personas=personas, after=f"GET {_IT}", **rest
    )


_BROKEN: Final = (("nothing", None), ("broken JSON", b"{"), ("a list", []), ("a text", "x"))
_LONG: Final = "n" * 81

CREATE: Final = (
    *_by_all("create", f"POST {_ALL}", "nothing", body={"namespace": "$id"}),
    *(
        _asking(f"create {name}", f"POST {_ALL}", "nothing", body=body)
        for name, body in (
            *_BROKEN,
            ("full", {"namespace": "$id", **_HELD}),
            ("without name", {"display_name": "x"}),
            ("with empty name", {"namespace": ""}),
            ("with long name", {"namespace": _LONG}),
            ("with number as name", {"namespace": 7}),
            ("with null as name", {"namespace": None}),
            ("with slash", {"namespace": "a/$id"}),
            ("with UTF-8", {"namespace": "$id", "display_name": "Zürich"}),
            ("with long display_name", {"namespace": "$id", "display_name": _LONG}),
            ("with null display_name", {"namespace": "$id", "display_name": None}),
            ("with long description", {"namespace": "$id", "description": "d" * 501}),
            ("private", {"namespace": "$id", "visibility": "private"}),
            ("of unknown visibility", {"namespace": "$id", "visibility": "shared"}),
            ("protected", {"namespace": "$id", "protected": True}),
            ("with text as protected", {"namespace": "$id", "protected": "true"}),
            ("for another project", {"namespace": "$id", "owner": "$member"}),
            ("with long owner", {"namespace": "$id", "owner": "o" * 256}),
            ("with unknown key", {"namespace": "$id", "colour": "red"}),
            *(
                (f"with {key}", {"namespace": "$id", key: "x"})
                for key in ("self", "schema", "created_at", "updated_at", "id")
            ),
            ("with types as text", {"namespace": "$id", "resource_type_associations": "x"}),
            ("with nameless type", {"namespace": "$id", "resource_type_associations": [{}]}),
            (
                "with type twice",
                {"namespace": "$id", "resource_type_associations": [{"name": "x"}, {"name": "x"}]},
            ),
            ("with objects as object", {"namespace": "$id", "objects": {}}),
            ("with nameless object", {"namespace": "$id", "objects": [{"description": "d"}]}),
            ("with object twice", {"namespace": "$id", "objects": [{"name": "a"}, {"name": "a"}]}),
            ("with properties as list", {"namespace": "$id", "properties": []}),
            ("with untyped property", {"namespace": "$id", "properties": {"p": {"title": "t"}}}),
            ("with untitled property", {"namespace": "$id", "properties": {"p": {"type": "null"}}}),
            ("with tags as texts", {"namespace": "$id", "tags": ["a"]}),
            ("with nameless tag", {"namespace": "$id", "tags": [{}]}),
            ("with tag twice", {"namespace": "$id", "tags": [{"name": "a"}, {"name": "a"}]}),
            ("with long tag", {"namespace": "$id", "tags": [{"name": _LONG}]}),
        )
    ),
    _asking("create again", f"POST {_ALL}", body={"namespace": "$id"}),
    _asking("create without a type", f"POST {_ALL}", "nothing", body=b'{"namespace": "$id"}'),
)

SHOW: Final = (
    *_by_all("show", f"GET {_IT}", "private namespace", "full namespace"),
    *(
        _asking(f"show {given}", "GET .", given)
        for given in ("nothing", "namespace", "protected namespace", "large namespace")
    ),
    *(
        _asking(f"show by {query}", f"GET .?{query}")
        for query in (
            *("resource_type=OS::Nova::Server", "resource_type=x", "resource_type=", "x=y"),
        )
    ),
    _asking("show with a body", "GET .", body={}),
    _asking("show what has a long name", f"GET {_ALL}/{_LONG}"),
)

LIST: Final = (
    *_by_all("list", f"GET {_ALL}?resource_types=$id", "three namespaces"),
    *(
        _asking(f"list {query}", f"GET {_ALL}?resource_types=$id&{query}", "three namespaces")
        for query in (
            *("limit=1", "limit=2", "limit=3", "limit=0", "limit=-1", "limit=x"),
            *("marker=$second", "limit=1&marker=$third", "marker=$absent", "marker="),
            *("sort_key=namespace", "sort_key=namespace&sort_dir=asc", "sort_dir=asc"),
            *("sort_key=updated_at", "sort_key=x", "sort_dir=x", "sort_key=display_name"),
            *("visibility=public", "visibility=private", "visibility=x", "visibility="),
            *("unknown=x", "owner=$owner", "protected=true"),
        )
    ),
    *(
        _asking(f"list of {types}", f"GET {_ALL}?resource_types={types}", "three namespaces")
        for types in ("$second", "$id,$second", "$id,$id", "$absent", "$absent,$second")
    ),
    _asking("list with a body", f"GET {_ALL}?resource_types=$id", "three namespaces", body={}),
)

UPDATE: Final = (
    *_by_all(
        "update",
        f"PUT {_IT}",
        *("private namespace", "full namespace"),
        body={"namespace": "$id", "description": "new"},
    ),
    *(
        _asking(f"update with {name}", "PUT .", body=body)
        for name, body in (
            *_BROKEN,
            ("no name", {"description": "x"}),
            ("all", {"namespace": "$id", "visibility": "private", "protected": True}),
            ("another owner", {"namespace": "$id", "owner": "$member"}),
            ("unknown visibility", {"namespace": "$id", "visibility": "x"}),
            ("long name", {"namespace": _LONG}),
            ("read-only", {"namespace": "$id", "self": "x"}),
            ("unknown key", {"namespace": "$id", "colour": "red"}),
            ("objects", {"namespace": "$id", "objects": [{"name": "new"}]}),
        )
    ),
    Exchange(
        name="metadefs: rename",
        request=f"PUT {_IT}",
        by="admin",
        given="full namespace",
        body={"namespace": "$third"},
        after=f"GET {_ALL}/$third",
    ),
    _asking("rename to another's", "PUT .", "two namespaces", body={"namespace": "$second"}),
    _asking("update nothing", "PUT .", "nothing", body={"namespace": "$id"}),
    _asking("update protected", "PUT .", "protected namespace", body={"namespace": "$id"}),
)

DELETE: Final = (
    *_by_all("delete", f"DELETE {_IT}", "private namespace", "full namespace"),
    *(
        _asking(f"delete {given}", "DELETE .", given)
        for given in ("nothing", "namespace", "protected namespace")
    ),
    _asking("delete with a body", "DELETE .", body={}),
    *chain.from_iterable(
        (
            *_by_all(f"delete all {kind}", f"DELETE {_IT}/{kind}", "full namespace"),
            *(
                _asking(f"delete all {kind}, {given}", f"DELETE ./{kind}", given)
                for given in ("nothing", "namespace", "protected namespace")
            ),
            _asking(f"delete all {kind} with a body", f"DELETE ./{kind}", body={}),
        )
        for kind in ("objects", "properties", "tags")
    ),
)

# All that were ever made are listed, so this comes before what makes others.
ALL_TYPES: Final = _by_all("resource types", "GET /v2/metadefs/resource_types", "full namespace")

TYPES: Final = (
    *_by_all("types of", f"GET {_IT}/resource_types", *("private namespace", "full namespace")),
    _asking("types of nothing", "GET ./resource_types", "nothing"),
    _asking("no types", "GET ./resource_types", "namespace"),
    _asking("types with a body", "GET ./resource_types", body={}),
    *_by_all(
        "associate",
        f"POST {_IT}/resource_types",
        *("private namespace", "full namespace"),
        body={"name": "OS::Cinder::Volume", "prefix": "v_"},
    ),
    *(
        _asking(f"associate with {name}", "POST ./resource_types", body=body)
        for name, body in (
            *_BROKEN,
            ("an unknown type", {"name": "$third"}),
            ("what it has", {"name": "OS::Nova::Server"}),
            ("no name", {"prefix": "x"}),
            ("empty name", {"name": ""}),
            ("long name", {"name": _LONG}),
            ("long prefix", {"name": "x", "prefix": _LONG}),
            ("long target", {"name": "x", "properties_target": _LONG}),
            ("null prefix", {"name": "x", "prefix": None}),
            ("a time", {"name": "x", "created_at": "2020-01-01T00:00:00Z"}),
            ("unknown key", {"name": "x", "colour": "red"}),
        )
    ),
    *_by_all("dissociate", f"DELETE {_IT}/resource_types/OS::Nova::Server", "full namespace"),
    _asking("dissociate absent", "DELETE ./resource_types/absent"),
    _asking(
        "dissociate protected",
        "DELETE ./resource_types/OS::Nova::Server",
        "protected namespace",
    ),
)

OBJECTS: Final = (
    *_by_all("objects", f"GET {_IT}/objects", "private namespace", "full namespace"),
    *(
        _asking(f"objects by {query}", f"GET ./objects?{query}", "large namespace")
        for query in (
            *("limit=1", "limit=0", "limit=-1", "limit=x", "marker=cpu", "marker=absent"),
            *("sort_key=name", "sort_key=name&sort_dir=asc", "sort_key=x", "sort_dir=x"),
            *("sort_dir=asc", "visibility=public", "unknown=x", "limit=2&marker=net"),
        )
    ),
    _asking("objects of nothing", "GET ./objects", "nothing"),
    *_by_all(
        "add object",
        f"POST {_IT}/objects",
        *("private namespace", "full namespace"),
        body={"name": "new"},
    ),
    *_by_all("object", f"GET {_IT}/objects/disk", "private namespace", "full namespace"),
    *_by_all("change object", f"PUT {_IT}/objects/disk", "full namespace", body={"name": "disk"}),
    *_by_all("remove object", f"DELETE {_IT}/objects/disk", "full namespace"),
    *(
        _asking(f"{how} object with {name}", request, body=body)
        for how, request in (("add", "POST ./objects"), ("change", "PUT ./objects/disk"))
        for name, body in (
            *_BROKEN,
            ("all", {"name": "x", "description": "d", "properties": {"size": _SIZE}}),
            ("no name", {"description": "d"}),
            ("empty name", {"name": ""}),
            ("long name", {"name": _LONG}),
            ("number as name", {"name": 7}),
            ("long description", {"name": "x", "description": "d" * 501}),
            ("text as required", {"name": "x", "required": "kind"}),
            ("required what is not there", {"name": "x", "required": ["nothing"]}),
            ("untyped property", {"name": "x", "properties": {"p": {"title": "t"}}}),
            ("property of unknown type", {"name": "x", "properties": {"p": {"type": "x"}}}),
            ("read-only", {"name": "x", "self": "x"}),
            ("unknown key", {"name": "x", "colour": "red"}),
        )
    ),
    _asking("add object again", "POST ./objects", body={"name": "disk"}),
    _asking("add object to nothing", "POST ./objects", "nothing", body={"name": "x"}),
    _asking("absent object", "GET ./objects/absent"),
    _asking("change absent object", "PUT ./objects/absent", body={"name": "x"}),
    _asking("remove absent object", "DELETE ./objects/absent"),
    _asking("remove protected object", "DELETE ./objects/disk", "protected namespace"),
    _asking(
        "rename object to another's", "PUT ./objects/cpu", "large namespace", body={"name": "net"}
    ),
)

PROPERTIES: Final = (
    *_by_all("properties", f"GET {_IT}/properties", "private namespace", "full namespace"),
    _asking("properties of nothing", "GET ./properties", "nothing"),
    _asking("no properties", "GET ./properties", "namespace"),
    _asking("properties with a limit", "GET ./properties?limit=x"),
    *_by_all(
        "add property",
        f"POST {_IT}/properties",
        *("private namespace", "full namespace"),
        body={"name": "kind", **_KIND},
    ),
    *_by_all("property", f"GET {_IT}/properties/size", "private namespace", "full namespace"),
    *_by_all(
        "change property",
        f"PUT {_IT}/properties/size",
        "full namespace",
        body={"name": "size", **_SIZE},
    ),
    *_by_all("remove property", f"DELETE {_IT}/properties/size", "full namespace"),
    *(
        _asking(f"{how} property with {name}", request, body=body)
        for how, request in (("add", "POST ./properties"), ("change", "PUT ./properties/size"))
        for name, body in (
            *_BROKEN,
            ("no name", _KIND),
            ("no title", {"name": "x", "type": "string"}),
            ("no type", {"name": "x", "title": "t"}),
            ("unknown type", {"name": "x", "title": "t", "type": "date"}),
            ("empty name", {"name": "", "title": "t", "type": "string"}),
            ("long name", {"name": _LONG, "title": "t", "type": "string"}),
            (
                "all",
                {
                    "name": "x",
                    "title": "t",
                    "type": "array",
                    "description": "d",
                    "operators": ["<or>"],
                    "default": "1",
                    "readonly": True,
                    "items": {"type": "string", "enum": ["1"]},
                    "uniqueItems": True,
                    "minItems": 1,
                    "maxItems": 2,
                    "additionalItems": False,
                },
            ),
            (
                "limits",
                {
                    "name": "x",
                    "title": "t",
                    "type": "string",
                    "minLength": 1,
                    "maxLength": 9,
                    "pattern": "^a$",
                    "confidential": True,
                },
            ),
            ("negative length", {"name": "x", "title": "t", "type": "string", "minLength": -1}),
            ("text as minimum", {"name": "x", "title": "t", "type": "integer", "minimum": "1"}),
            ("enum twice", {"name": "x", "title": "t", "type": "string", "enum": ["a", "a"]}),
            ("bad pattern", {"name": "x", "title": "t", "type": "string", "pattern": "("}),
            ("unknown key", {"name": "x", "title": "t", "type": "string", "colour": "red"}),
            ("read-only", {"name": "x", "title": "t", "type": "string", "created_at": "x"}),
        )
    ),
    _asking("add property again", "POST ./properties", body={"name": "size", **_SIZE}),
    *(
        _asking(f"property by {query}", f"GET ./properties/{query}")
        for query in (
            *("absent", "hw_size?resource_type=OS::Nova::Server", "hw_size", "size?x=y"),
            *("size?resource_type=OS::Nova::Server", "hw_size?resource_type=x"),
            "hw_absent?resource_type=OS::Nova::Server",
        )
    ),
    _asking("change absent property", "PUT ./properties/absent", body={"name": "x", **_KIND}),
    _asking("remove absent property", "DELETE ./properties/absent"),
    _asking("remove protected property", "DELETE ./properties/size", "protected namespace"),
    _asking("rename property", "PUT ./properties/size", body={"name": "new", **_SIZE}),
)

TAGS: Final = (
    *_by_all("tags", f"GET {_IT}/tags", "private namespace", "full namespace"),
    *(
        _asking(f"tags by {query}", f"GET ./tags?{query}", "large namespace")
        for query in (
            *("limit=1", "limit=0", "limit=-1", "limit=x", "marker=bsd", "marker=absent"),
            *("sort_key=name", "sort_key=name&sort_dir=asc", "sort_key=x", "sort_dir=x"),
            *("limit=2&marker=linux&sort_dir=asc", "unknown=x"),
        )
    ),
    _asking("tags of nothing", "GET ./tags", "nothing"),
    *_by_all(
        "add tag",
        f"POST {_IT}/tags/new",
        *("private namespace", "full namespace"),
    ),
    *_by_all("add tags", f"POST {_IT}/tags", "full namespace", body={"tags": [{"name": "new"}]}),
    *_by_all("tag", f"GET {_IT}/tags/fast", "private namespace", "full namespace"),
    *_by_all("rename tag", f"PUT {_IT}/tags/fast", "full namespace", body={"name": "slow"}),
    *_by_all("remove tag", f"DELETE {_IT}/tags/fast", "full namespace"),
    *(
        _asking(
            f"add tags, appending: {said}",
            "POST ./tags",
            body={"tags": [{"name": name} for name in names]},
            headers={"X-Openstack-Append": said},
        )
        for said, names in (
            *(("True", ["new"]), ("true", ["new", "more"]), ("1", ["new"]), ("yes", ["new"])),
            *(("false", ["new"]), ("nonsense", ["new"]), ("", ["new"]), ("t", ["fast"])),
            ("on", []),
        )
    ),
    *(
        _asking(f"add tags with {name}", "POST ./tags", body=body)
        for name, body in (
            *_BROKEN,
            ("none", {"tags": []}),
            ("what there is", {"tags": [{"name": "fast"}]}),
            ("one twice", {"tags": [{"name": "a"}, {"name": "a"}]}),
            ("no names", {"tags": [{}]}),
            ("texts", {"tags": ["a"]}),
            ("long name", {"tags": [{"name": _LONG}]}),
            ("nothing called tags", {}),
            ("unknown key", {"tags": [], "colour": "red"}),
        )
    ),
    *(
        _asking(f"rename tag with {name}", "PUT ./tags/fast", body=body)
        for name, body in (
            *_BROKEN,
            ("no name", {}),
            ("empty name", {"name": ""}),
            ("long name", {"name": _LONG}),
            ("read-only", {"name": "x", "created_at": "x"}),
            ("unknown key", {"name": "x", "colour": "red"}),
            ("its own name", {"name": "fast"}),
        )
    ),
    _asking("rename tag to another's", "PUT ./tags/bsd", "large namespace", body={"name": "linux"}),
    _asking("add tag again", "POST ./tags/fast"),
    _asking("add long tag", f"POST ./tags/{_LONG}"),
    _asking("add tag with a body", "POST ./tags/new", body={}),
    _asking("add tag in UTF-8", "POST ./tags/gr%C3%BCn"),
    _asking("add tag with a space", "POST ./tags/a%20b"),
    _asking("absent tag", "GET ./tags/absent"),
    _asking("rename absent tag", "PUT ./tags/absent", body={"name": "x"}),
    _asking("remove absent tag", "DELETE ./tags/absent"),
    _asking("remove protected tag", "DELETE ./tags/fast", "protected namespace"),
)

SCHEMAS: Final = tuple(
    Exchange(name=f"schema metadefs/{name}", request=f"GET /v2/schemas/metadefs/{name}")
    for name in (
        *("namespace", "namespaces", "resource_type", "resource_types", "property", "properties"),
        *("object", "objects", "tag", "tags", "nothing"),
    )
)

METHODS: Final = tuple(
    Exchange(name=f"metadefs: {method} {path}", request=f"{method} {path}", given="namespace")
    for method, path in (
        *(("PUT", _ALL), ("DELETE", _ALL), ("PATCH", _IT), ("POST", _IT), ("HEAD", _IT)),
        *(("PUT", f"{_IT}/{kind}") for kind in ("resource_types", "objects", "properties", "tags")),
        *(("POST", f"{_IT}/{kind}/x") for kind in ("objects", "properties")),
        *(("PATCH", f"{_IT}/{kind}/x") for kind in ("objects", "properties", "tags")),
        *(("GET", f"{_IT}/resource_types/x"), ("POST", "/v2/metadefs/resource_types")),
        *(("POST", "/v2/schemas/metadefs/tag"), ("GET", "/v2/metadefs"), ("GET", f"{_IT}/x")),
        ("GET", f"{_IT}/objects/x/y"),
    )
)

METADEFS: Final = (
    *ALL_TYPES,
    *SCHEMAS,
    *METHODS,
    *CREATE,
    *SHOW,
    *LIST,
    *UPDATE,
    *DELETE,
    *TYPES,
    *OBJECTS,
    *PROPERTIES,
    *TAGS,
)
