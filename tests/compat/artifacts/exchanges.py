"""The requests about artifacts that are sent to Glare and to our service, as data: see `form`."""

from itertools import chain
from typing import Any, Final

from tests.compat.artifacts.form import (
    EVERYBODY,
    JSON,
    LOCATION,
    SAMPLE,
    Exchange,
    Step,
    exchange,
    locate,
    make,
    operation,
    patch,
    put,
    told,
)

TYPES: Final = (
    *("all", "images", "heat_templates", "heat_environments", "tosca_templates"),
    *("murano_packages", "sample_artifact"),
)

# What the states are made of -------------------------------------------------------------------

ACTIVATE: Final = patch(("replace", "/status", "active"))
DEACTIVATE: Final = patch(("replace", "/status", "deactivated"), by="admin")
PUBLISH: Final = patch(("replace", "/visibility", "public"), by="admin")

DRAFTED: Final = (make("id", string_required="x"),)
ACTIVE: Final = (*DRAFTED, ACTIVATE)
DEACTIVATED: Final = (*ACTIVE, DEACTIVATE)
PUBLIC: Final = (*ACTIVE, PUBLISH)
PUBLIC_DEACTIVATED: Final = (*PUBLIC, DEACTIVATE)
GIVEN: Final = {
    "drafted": DRAFTED,
    "active": ACTIVE,
    "deactivated": DEACTIVATED,
    "public": PUBLIC,
    "public deactivated": PUBLIC_DEACTIVATED,
}
FULL: Final = (
    make(
        "id",
        version="1.2.3",
        description="all of it",
        # Only one: Glare keeps them in no order.
        tags=["a"],
        metadata={"k": "v", "l": "w"},
        bool1=True,
        int1=7,
        int2=-1,
        float1=1.5,
        str1="text",
        list_of_str=["a", "b", "c"],
        list_of_int=[3, 1, 2],
        dict_of_str={"k": "v", "l": "w"},
        dict_of_int={"one": 1, "two": 2},
        string_mutable="soft",
        string_regex="0123abcd",
        string_required="x",
        string_validators="aa",
        int_validators=15,
        list_validators=["a", "b"],
        dict_validators={"abc": "1", "def": "2"},
        metadata_attribute="mine",
    ),
)


def get(path: str, by: str = "owner", **rest: Any) -> Step:
    return Step(request=f"GET {path}", by=by, **rest)


def show(by: str = "owner") -> Step:
    return get(f"{SAMPLE}/$id", by)


def delete(path: str = f"{SAMPLE}/$id", by: str = "owner", **rest: Any) -> Step:
    return Step(request=f"DELETE {path}", by=by, **rest)


def by_all(name: str, *given: str, **step: Any) -> tuple[Exchange, ...]:
    """The request by each persona in each state."""
    return tuple(
        exchange(f"{name}, {state}, by {by}", Step(by=by, **step), *GIVEN[state])
        for state in given
        for by in EVERYBODY
    )


# 1.0, 1.1: versions and what is of no resource -------------------------------------------------


def _asked(value: str | None, path: str = SAMPLE, name: str = "OpenStack-API-Version") -> Exchange:
    return exchange(
        f"version: {name}: {value} of {path}", get(path, headers={name: value} if value else {})
    )


VERSIONS: Final = (
    *(
        exchange(f"versions: {method} {path}", Step(request=f"{method} {path}", by=by))
        for method, path, by in (
            *(("GET", "/", "anonymous"), ("GET", "/versions", "anonymous")),
            *(("POST", "/versions", "owner"), ("GET", "/versions/", "owner")),
        )
    ),
    *(
        _asked(value)
        for value in (
            *(None, "artifact 1.0", "artifact 1.1", "artifact latest", "Artifact 1.1"),
            *("artifact 1.2", "artifact 2.0", "artifact 0.9", "artifact 1", "artifact 1.01"),
            *("artifact nonsense", "1.1", "compute 2.1", "compute 2.1, artifact 1.1"),
            *("artifact 1.1, compute 2.1", "compute nonsense"),
        )
    ),
    *(
        _asked(f"application/vnd.openstack.artifacts-{value}", name="Accept")
        for value in ("1.0", "1.1", "latest", "1.2", "2", "x", "")
    ),
    *(
        _asked(value, name="Accept")
        for value in ("application/json", "text/html", "*/*", "text/plain", "image/png")
    ),
    _asked("artifact 1.0", "/quotas"),
    _asked("artifact 7.0", "/nothing"),
    exchange(
        "version: both carriers",
        get(
            SAMPLE,
            headers={
                "Accept": "application/vnd.openstack.artifacts-1.1",
                "OpenStack-API-Version": "artifact 1.0",
            },
        ),
    ),
    *(
        exchange(f"routes: {method} {path}", Step(request=f"{method} {path}"), *DRAFTED, after="")
        for method in ("GET", "HEAD", "PUT", "POST", "PATCH", "DELETE", "OPTIONS")
        for path in (
            *("/schemas", "/schemas/images", SAMPLE, f"{SAMPLE}/$absent", f"{SAMPLE}/$id/blob"),
            *("/quotas", "/project-quotas", "/project-quotas/demo", "/nothing", "/artifacts"),
            *("/v1", "/artifacts/nothing"),
        )
        # Those that are well-formed have exchanges of their own.
        if (method, path) not in (("GET", f"{SAMPLE}/$id/blob"),)
    ),
    *(
        exchange(f"routes: GET {path}", get(path), *DRAFTED)
        for path in (
            *("/schemas/", f"{SAMPLE}/", f"{SAMPLE}/$id/", f"{SAMPLE}/$id.json", "/schemas/x.json"),
            *(f"{SAMPLE}/nonsense", f"{SAMPLE}/{'x' * 300}", "/artifacts/images/$id"),
            *("/artifacts/all/$id", "/artifacts/All/$id", "/artifacts/nothing/$id"),
            *(f"{SAMPLE}/%24id", f"{SAMPLE}/$id/blob/", f"{SAMPLE}/$id/dict_of_blobs/"),
        )
    ),
    *(
        exchange(f"with a body: {step.request}", step, *DRAFTED)
        for step in (
            *(get(SAMPLE, body={}), get(f"{SAMPLE}/$id", body={}), delete(body={})),
            *(get("/schemas", body={}), get("/schemas/images", body={}), get("/quotas", body={})),
            get("/versions", body={}),
        )
    ),
    exchange("with a type and no body", get(SAMPLE, headers={"Content-Type": JSON})),
    *chain.from_iterable(
        (
            exchange(f"{method} {path}, by {by}", Step(request=f"{method} {path}", by=by))
            for by in ("anonymous", "denied", "without project", "nobody")
        )
        for method, path in (
            *(("GET", "/schemas"), ("GET", SAMPLE), ("GET", "/artifacts/nothing")),
            *(("GET", "/nothing"), ("GET", "/quotas"), ("GET", "/project-quotas")),
        )
    ),
)

# 1.2, 2: schemas ---------------------------------------------------------------------------------

SCHEMAS: Final = tuple(
    exchange(f"schema: {path}", get(f"/schemas{path}"))
    for path in ("", *(f"/{name}" for name in TYPES), "/nothing", "/secrets", "/Images")
)

# 1.3: create -------------------------------------------------------------------------------------


def creating(how: str, /, body: Any = None, of: str = "sample_artifact", **fields: Any) -> Exchange:
    return exchange(
        f"create {how}",
        Step(
            request=f"POST /artifacts/{of}",
            body={"name": "a", **fields} if body is None else body,
            makes="id",
        ),
    )


def created(by: str = "owner", **fields: Any) -> Step:
    return Step(request=f"POST {SAMPLE}", by=by, body={"name": "a", **fields}, makes="second")


_VALUES: Final[dict[str, tuple[Any, ...]]] = {
    "name": (
        *("", None, "n" * 255, "n" * 256, 7, 1.5, True, ["a"], {"a": 1}, "Zürich", "a/b", " "),
        *("a:b", "a,b", "\U0001f600", "a\u0000b", "%", "a\nb"),
    ),
    "version": (
        *("1", "1.0", "1.2.3", "01.02.03", "1-beta", "1:0", "1:0:0", "2:0-0", "1_0", "1.2.3.4"),
        *("", ":", "-1", "v1", "dummy", "t" * 256, "1.0.0-01", "1.0.0-a.b.1", "1.0.0+build"),
        *("1.0.0-rc1+b.2", 1, 2.0, 1.25, True, None, [], {}, "65535.65535.65535", "65536"),
        *("1.65536", "32768.0.0", "1.0.0-1000000", "1.0.0-999999", "1.0.0.0.0", "1 0", " 1"),
        *("1.0.0-", "1.0.0+", "1.0.0--", "1." + "0" * 300, "9" * 30),
    ),
    "description": ("", None, "d" * 4096, "d" * 4097, 7, ["a"], {"a": "b"}, True),
    "tags": (
        *([], None, ["a", "b"], ["a", "a"], ["a,b"], ["a/b"], [""], ["t" * 255], ["t" * 256]),
        *("a", {"a": "b"}, [7], [None], [["a"]], 7, [str(number) for number in range(255)]),
        [str(number) for number in range(256)],
    ),
    "metadata": (
        *({}, None, {"k": "v"}, {"k": 7}, {"k": None}, {"": "v"}, {"k" * 255: "v"}, {"k": ""}),
        *({"k" * 256: "v"}, {"k": "v" * 255}, {"k": "v" * 256}, [], "x", {"k": ["a"]}, 7),
        *({str(n): "v" for n in range(number)} for number in (255, 256)),
    ),
    "visibility": ("private", "public", None),
    "status": ("drafted", "active", None),
    "display_type_name": ("x", None),
    "owner": ("demo", "other", None),
    "id": ("00000000-0000-4000-8000-000000000001", None),
    "created_at": ("2020-01-01T00:00:00Z",),
    "activated_at": (None,),
    "system_attribute": ("x", "default"),
    "type_name": ("images",),
    "nothing": ("x", None),
    "": ("x",),
    "blob": ({}, None, "x", {"url": "http://x", "md5": "x"}),
    "dict_of_blobs": ({}, None, {"a": {}}),
    "link1": (
        *(None, "", "nonsense", "/artifacts/sample_artifact/x", "/artifacts/sample_artifact", 7),
        *("/artifacts/x/y/z", "/artifacts/sample_artifact/00000000-0000-4000-8000-000000000000"),
        *("ftp://example.org/x", [], {}),
    ),
    "bool1": (True, False, None, "yes", "no", "x", "", 1, 0, 2, 1.0, [], {}, [1], "TRUE", "on"),
    "int1": (
        *(7, -7, None, "2", "3.0", 1.1, 1.9, True, "", "x", [], {}, 2**31 - 1, 2**31, -(2**31)),
        *(" 5 ", "1e3"),
    ),
    "float1": (1, 1.5, "2", "3.0", True, "True", None, [], {}, "", 1e300, "nan", "inf", "1e3"),
    "str1": (
        *("", None, "x", 7, 1.0, True, [], {}, "x" * 255, "x" * 256, "\u0000"),
        "a'b\"c\\d",
    ),
    "list_of_str": (
        *([], None, ["a"], ["a", "a"], [1, True, 1.5], [None], [["a"]], [{}], "a", {"a": "b"}, 7),
        *([""], ["x" * 255], ["x" * 256], ["c", "a", "b"]),
        *([str(one) for one in range(number)] for number in (255, 256)),
    ),
    "list_of_int": ([1, 2], ["1", 2.7, True], ["x"], [None], [[]], 1, None, [2**31]),
    "dict_of_str": (
        *({}, None, {"a": "b"}, {"a": 1}, {"a": None}, {"": "b"}, [], "a", {"a": []}, {"a.b": "c"}),
        *({"a/b": "c"}, {"k" * 255: "v"}, {"k" * 256: "v"}),
    ),
    "dict_of_int": ({"a": 1}, {"a": "1"}, {"a": "x"}, {"a": None}, {"a": 1.9}, []),
    "dict_of_links": ({"a": "https://example.org"}, {"a": "x"}, {"a": None}, {}),
    "list_of_links": (["x"], [], [None], "https://example.org"),
    "string_regex": ("0123abcd", "0123abcdef", "0123abc", "xyz", "", None),
    "string_validators": ("aa", "bb", "c" * 11, "cc", "", None),
    "int_validators": (9, 10, 20, 21, "15", None),
    "list_validators": (["a", "b", "c"], ["a", "b", "c", "d"], ["a", "a"], [], None),
    "dict_validators": (
        *({"abc": "x"}, {"abc": None}, {"zzz": "x"}, {}, None, []),
        *({"abc": "1", "def": "2", "ghi": "3"}, {"abc": "", "def": "", "ghi": "", "jkl": ""}),
    ),
    "metadata_attribute": ("x", None, ""),
    "__some_meta_information__": ("x",),
}


CREATE: Final = (
    creating("bare"),
    exchange("create all fields", FULL[0]),
    *(
        creating(
            f"{name or 'no name'}={told(value)}",
            **{name: value},
        )
        for name, values in _VALUES.items()
        for value in values
    ),
    *(
        creating(f"{name} bare", of=name)
        for name in (*TYPES, "secrets", "nothing", "Images", "")
        if name not in ("sample_artifact", "")
    ),
    creating("nothing without name", of="nothing", body={}),
    creating("nothing with status", of="nothing", status="x"),
    *(
        creating(f"of {name} with {fields}", of=name, **fields)
        for name, fields in (
            ("images", {"container_format": "bare", "disk_format": "raw", "min_ram": 1}),
            ("images", {"container_format": "nonsense"}),
            ("images", {"disk_format": "ploop"}),
            ("images", {"min_ram": -1}),
            ("images", {"kernel_id": "nonsense"}),
            ("images", {"kernel_id": "00000000-0000-4000-8000-000000000000"}),
            ("images", {"architecture": "x86_64", "os_distro": "debian", "os_version": "12"}),
            ("images", {"image": {}}),
            ("heat_templates", {"default_envs": {"a": "b"}, "environments": {"a": "http://x/y"}}),
            ("heat_templates", {"environments": {"a": "x"}}),
            ("heat_templates", {"nested_templates": {}}),
            ("tosca_templates", {"template_format": "yaml"}),
            ("murano_packages", {"type": "Library", "display_name": "D", "keywords": ["k"]}),
            ("murano_packages", {"type": "Nonsense"}),
            ("murano_packages", {"class_definitions": ["a", "a"], "categories": ["c", "c"]}),
            ("murano_packages", {"class_definitions": ["b", "a"], "inherits": {"a": "b"}}),
            ("murano_packages", {"dependencies": ["x"]}),
        )
        if fields.get("environments") != {"a": "http://x/y"}
    ),
    *(
        creating(f"from {name}", body=body)
        for name, body in (
            *(("a list", []), ("a list of one", [{"name": "a"}]), ("a text", "x"), ("a number", 7)),
            *(("broken JSON", b"{"), ("no bytes", b""), ("bytes", b"\xff"), ("null", b"null")),
            *(
                ("nothing", {}),
                ("no name", {"version": "1"}),
                ("two names", b'{"name":1,"name":2}'),
            ),
            ("a name and NaN", b'{"name": "a", "float1": NaN}'),
        )
    ),
    exchange("create without a body", Step(request=f"POST {SAMPLE}")),
    *(
        exchange(
            f"create as {media}",
            Step(request=f"POST {SAMPLE}", body={"name": "a"}, headers={"Content-Type": media}),
        )
        for media in (
            *(None, "", "text/plain", "application/json; charset=utf-8", "application/x-json"),
            *("application/json-patch+json", "APPLICATION/JSON", "application/*", "nonsense"),
        )
    ),
    *(
        exchange(f"create, by {by}", Step(request=f"POST {SAMPLE}", by=by, body={"name": "a"}))
        for by in EVERYBODY
    ),
    *(
        exchange(f"create nothing's, by {by}", Step(request="POST /artifacts/x", by=by, body={}))
        for by in ("anonymous", "without project")
    ),
    # Names and versions are taken.
    exchange("create twice", created(), make("id")),
    *(
        exchange(f"create twice with version {version}", created(version=version), make("id"))
        for version in ("0", "0.0", "0.0.0", "0.0.1", "0.0.0-a", "0.0.0+a", "0.0.0.0")
    ),
    *(
        exchange(
            f"create {second} after {first}",
            created(version=second),
            make("id", version=first),
        )
        for first, second in (
            *(("1.0.0+a", "1.0.0+b"), ("1.0.0+a", "1.0.0+a"), ("1.0.0-a", "1.0.0-A")),
            *(("1.0.0-1", "1.0.0-01"), ("1", "1.0"), ("1.0.0-1", "1.0.0-1")),
        )
    ),
    exchange("create in another case", created(name="A"), make("id")),
    *(exchange(f"create twice, by {by}", created(by), make("id")) for by in EVERYBODY),
    exchange("create what is public", created(), *PUBLIC),
    exchange("create what is public, by other", created("other"), *PUBLIC),
    exchange("create what is deleted", created(), make("id"), delete()),
    exchange(
        "create the same of another type",
        Step(request="POST /artifacts/images", body={"name": "a"}, makes="second"),
        make("id"),
    ),
    exchange("create with a link", created(link1=f"{SAMPLE}/$id"), make("id")),
    exchange("create with a link of another type", created(link1="/artifacts/x/$id"), make("id")),
    exchange("create with a link to other's", created("other", link1=f"{SAMPLE}/$id"), make("id")),
    exchange("create with a link to public", created("other", link1=f"{SAMPLE}/$id"), *PUBLIC),
    exchange("create with links", created(list_of_links=[f"{SAMPLE}/$id"] * 2), make("id")),
    exchange("create with named links", created(dict_of_links={"a": f"{SAMPLE}/$id"}), make("id")),
)

# 1.4: show, 1.6: delete --------------------------------------------------------------------------

SHOW: Final = (
    *by_all("show", *GIVEN, request=f"GET {SAMPLE}/$id"),
    *by_all("show as of all", "drafted", "public", request="GET /artifacts/all/$id"),
    exchange("show all fields", show(), *FULL),
    exchange("show all fields as of all", get("/artifacts/all/$id"), *FULL),
    exchange("show nothing", get(f"{SAMPLE}/$absent")),
    exchange("show deleted", show(), *DRAFTED, delete()),
    *(
        exchange(f"show of {name}", get(f"/artifacts/{name}/$id"), make("id", of=name))
        for name in TYPES
        if name != "all"
    ),
)

DELETE: Final = (
    *by_all("delete", *GIVEN, request=f"DELETE {SAMPLE}/$id"),
    exchange("delete nothing", delete(f"{SAMPLE}/$absent")),
    exchange("delete twice", delete(), *DRAFTED, delete()),
    exchange("delete as of all", delete("/artifacts/all/$id"), *DRAFTED),
    exchange("delete as of images", delete("/artifacts/images/$id"), *DRAFTED),
    exchange("delete of nothing", delete("/artifacts/nothing/$id"), *DRAFTED),
    exchange("delete all fields", delete(), *FULL),
    exchange(
        "delete with blobs",
        delete(),
        *FULL,
        put("blob"),
        put("dict_of_blobs/a"),
        locate("small_blob"),
    ),
)

# 1.5: change -------------------------------------------------------------------------------------


def changing(name: str, *operations: Any, given: Any = FULL, by: str = "owner") -> Exchange:
    return exchange(f"patch {name}", patch(*operations, by=by), *given)


def sending(name: str, body: Any, media: str | None = "application/json-patch+json") -> Exchange:
    step = Step(request=f"PATCH {SAMPLE}/$id", body=body, headers={"Content-Type": media})
    return exchange(f"patch {name}", step, *FULL)


_PATCHED: Final = {
    **{name: values for name, values in _VALUES.items() if name not in ("visibility", "status")},
    "id": (None, "x", "00000000-0000-4000-8000-000000000001"),
    "blob": (None, {}, "x"),
}
_POINTERS: Final = (
    *("", "/", "//", "name", "/name/", "/name/x", "/name/0", "/nothing", "/nothing/x", "*/*"),
    *("/*", "/metadata/", "/metadata/x", "/metadata/x/y", "/metadata/k", "/metadata/k/x"),
    *("/tags/0", "/tags/-", "/tags/5", "/tags/x", "/tags/-1", "/tags/01", "/tags/0/0", "/tags/"),
    *("/list_of_str/0", "/list_of_str/1", "/list_of_str/3", "/list_of_str/4", "/list_of_str/10"),
    *("/list_of_str/-", "/list_of_str/-1", "/list_of_str/x", "/list_of_str/", "/list_of_str/999"),
    *("/dict_of_str/k", "/dict_of_str/new", "/dict_of_str/a~1b", "/dict_of_str/a~0b"),
    *("/dict_of_str/", "/dict_of_str/~2", "/dict_of_str/k/l", "/dict_of_int/one"),
    *("/list_of_int/0", "/list_validators/-", "/list_validators/0", "/dict_validators/ghi"),
    *("/dict_validators/zzz", "/dict_of_blobs/a", "/dict_of_blobs/a/b", "/blob/url", "/blob"),
    *("/system_attribute", "/id", "/created_at", "/updated_at", "/owner/x", "/link1"),
    *("/list_of_str/\uff10\uff10", "/description", "/int1", "/bool1", "/__some_meta_information__"),
    *("/display_type_name", "/type_name", "/list_of_links/-", "/dict_of_links/a"),
)
_BETWEEN: Final = (
    *(("/tags/0", "/metadata/k"), ("/dict_of_str/k", "/metadata/k"), ("/dict_of_str/k", "/str1")),
    *(("/str1", "/dict_of_str/new"), ("/str1", "/description"), ("/list_of_str/0", "/tags/-")),
    *(("/list_of_str/0", "/list_of_str/2"), ("/metadata", "/dict_of_str"), ("/int1", "/int2")),
    *(("/nothing", "/str1"), ("/str1", "/nothing"), ("/tags/9", "/str1"), ("/blob", "/str1")),
    *(("/str1", "/blob"), ("/str1", "/str1"), ("/str1", "/id"), ("/id", "/str1"), ("", "/str1")),
    *(("/str1", ""), ("/list_of_int/0", "/str1"), ("/str1", "/list_of_int/0")),
    *(("/metadata/x", "/metadata/y"), ("/metadata/k", "/metadata/k"), ("/name", "/str1")),
    *(("/dict_of_str", "/dict_of_str/k"), ("/str1", "/int1"), ("/status", "/str1")),
    *(("/str1", "/status"), ("/system_attribute", "/str1"), ("/str1", "/system_attribute")),
)

PATCHES: Final = (
    *(
        changing(f"{name or 'no name'} to {told(value)}", ("replace", f"/{name}", value))
        for name, values in _PATCHED.items()
        for value in values
    ),
    *(
        changing(f"add {name} {told(value)}", ("add", f"/{name}", value))
        for name, value in (
            *(("name", "b"), ("str1", "x"), ("tags", ["z"]), ("metadata", {"a": "b"})),
            *(("int1", 1), ("nothing", "x"), ("blob", {}), ("id", "x"), ("version", "7")),
        )
    ),
    *(
        changing(f"{op} {pointer}", (op, pointer, "x") if op != "remove" else (op, pointer))
        for op in ("add", "replace", "remove")
        for pointer in _POINTERS
    ),
    *(
        changing(f"{op} {name}", ("add", pointer, value))
        for op, name, pointer, value in (
            ("add", "a number to texts", "/dict_of_str/new", 1),
            ("add", "a list to texts", "/dict_of_str/new", [1]),
            ("add", "null to texts", "/dict_of_str/new", None),
            ("add", "an object to texts", "/dict_of_str/new", {}),
            ("add", "a number to numbers", "/dict_of_int/new", 3),
            ("add", "a text of a number to numbers", "/dict_of_int/new", "3"),
            ("add", "null to a list", "/list_of_str/-", None),
            ("add", "a list to a list", "/list_of_str/-", ["a"]),
            ("add", "a number to a list of numbers", "/list_of_int/-", 4),
            ("add", "what is there to unique ones", "/list_validators/-", "a"),
            ("add", "a tag that is there", "/tags/-", "a"),
            ("add", "a tag with a comma", "/tags/-", "a,b"),
            ("add", "an allowed key", "/dict_validators/ghi", "3"),
            ("add", "a link", "/list_of_links/-", "nonsense"),
        )
    ),
    *(
        changing(f"{op} {source} to {target}", {"op": op, "from": source, "path": target})
        for op in ("move", "copy")
        for source, target in _BETWEEN
    ),
    *(
        changing(
            f"test {path} {told(value)}" + (", active" if given is ACTIVE else ""),
            ("test", path, value),
            given=given,
        )
        for path, value, given in (
            *(("/name", "a", FULL), ("/name", "b", FULL), ("/nothing", "x", FULL)),
            *(("/name", "a", ACTIVE), ("/description", "", ACTIVE), ("/status", "active", ACTIVE)),
            *(("/status", "drafted", DRAFTED), ("/tags/0", "z", FULL), ("/metadata/k", "v", FULL)),
            *(("/list_of_int", [3, 1, 2], FULL), ("", "x", FULL), ("/blob", None, FULL)),
        )
    ),
    changing("test before replace", ("test", "/str1", "text"), ("replace", "/str1", "x")),
    changing("failing test after replace", ("replace", "/str1", "x"), ("test", "/str1", "text")),
    changing("test of what was replaced", ("replace", "/str1", "x"), ("test", "/str1", "x")),
    changing("by no operation"),
    changing("to what it is", ("replace", "/str1", "text")),
    changing("to what it is, in tags", ("replace", "/tags", ["a", "a"])),
    changing("two", ("replace", "/str1", "x"), ("replace", "/int1", 1)),
    changing("one good, one bad", ("replace", "/str1", "x"), ("replace", "/int1", "x")),
    changing("twice", ("replace", "/str1", "x"), ("replace", "/str1", "y")),
    *(
        sending(f"with {name}", body)
        for name, body in (
            *(("an object", {}), ("a text", "x"), ("a number", 7), ("broken JSON", b"[")),
            *(("null", b"null"), ("a list of texts", ["x"]), ("a list of lists", [[]])),
            *(("an empty operation", [{}]), ("no path", [{"op": "remove"}]), ("no bytes", b"")),
            *(("no op", [{"path": "/str1", "value": "x"}]), ("bytes", b"\xff")),
            ("no value", [{"op": "add", "path": "/str1"}]),
            ("no from", [{"op": "move", "path": "/str1"}]),
            ("null as path", [{"op": "add", "path": None, "value": "x"}]),
            ("null as op", [{"op": None, "path": "/str1", "value": "x"}]),
            ("a number as path", [{"op": "add", "path": 7, "value": "x"}]),
            ("a list as path", [{"op": "add", "path": [], "value": "x"}]),
            ("an unknown op", [{"op": "update", "path": "/str1", "value": "x"}]),
            ("op in capitals", [{"op": "ADD", "path": "/str1", "value": "x"}]),
            ("more than is read", [{"op": "add", "path": "/str1", "value": "x", "more": 1}]),
            ("a fragment", [{"op": "add", "path": "#/str1", "value": "x"}]),
            ("a number as from", [{"op": "copy", "path": "/str1", "from": 7}]),
        )
    ),
    *(
        sending(f"as {media}", [], media)
        for media in (
            *(None, "", JSON, "application/json-patch+json; charset=utf-8", "text/plain"),
            *("application/openstack-images-v2.1-json-patch", "APPLICATION/JSON-PATCH+JSON"),
        )
    ),
    exchange(
        "patch, wrong type and nothing there",
        Step(request=f"PATCH {SAMPLE}/$absent", body=[], headers={"Content-Type": JSON}),
    ),
    exchange(
        "patch, not well-formed and nothing there", Step(request=f"PATCH {SAMPLE}/$absent", body={})
    ),
    exchange("patch nothing", Step(request=f"PATCH {SAMPLE}/$absent", body=[])),
    exchange("patch as of all", patch(("add", "/str1", "x"), of="all"), *FULL),
    exchange("patch as of images", patch(("add", "/description", "x"), of="images"), *FULL),
    exchange("patch as of nothing", patch(("add", "/str1", "x"), of="nothing"), *FULL),
    exchange("patch deleted", patch(("add", "/str1", "x")), *FULL, delete()),
    *by_all(
        "describe",
        *GIVEN,
        request=f"PATCH {SAMPLE}/$id",
        body=[operation(("add", "/description", "x"))],
    ),
    *by_all(
        "change a frozen field",
        *("drafted", "active"),
        request=f"PATCH {SAMPLE}/$id",
        body=[operation(("add", "/str1", "x"))],
    ),
    *(
        changing(f"{path} of {name} to {value}", ("add", path, value), given=given, by="admin")
        for name, given in GIVEN.items()
        for path, value in (
            *(("/str1", "x"), ("/tags", ["x"]), ("/metadata", {"a": "b"}), ("/name", "b")),
            *(("/version", "2"), ("/string_mutable", "x"), ("/dict_of_links", {}), ("/str1", None)),
            *(("/metadata/a", "b"), ("/tags/-", "x"), ("/metadata_attribute", "x")),
        )
    ),
    changing("empty list", given=DEACTIVATED),
    # Names and versions are taken.
    *(
        exchange(
            f"rename to {what}",
            patch(*operations, name="second"),
            make("id"),
            make("second", name="b", version="1"),
        )
        for what, operations in (
            ("what there is", [("replace", "/name", "a"), ("replace", "/version", "0")]),
            ("what there is in another version", [("replace", "/name", "a")]),
            ("what there is and back", [("replace", "/name", "a"), ("replace", "/name", "b")]),
            ("the version of another", [("replace", "/version", "0.0.0")]),
            ("its own version", [("replace", "/version", "1.0.0")]),
        )
    ),
    exchange(
        "rename by admin to what there is",
        patch(("replace", "/name", "a"), name="second", by="admin"),
        make("id"),
        make("second", name="b"),
    ),
    exchange(
        "rename by admin to what admin has",
        patch(("replace", "/name", "a"), name="second", by="admin"),
        make("id", by="admin"),
        make("second", name="b"),
    ),
)

# 3.1: status and visibility ----------------------------------------------------------------------

_STATUSES: Final = (
    "drafted",
    "active",
    "deactivated",
    "deleted",
    "nonsense",
    "",
    None,
    7,
    "queued",
)

LIFE: Final = (
    *(
        changing(
            f"status {value!r} of {name} by {by}", ("replace", "/status", value), given=given, by=by
        )
        for name, given in GIVEN.items()
        for value in _STATUSES
        for by in ("owner", "admin")
    ),
    *(
        changing(
            f"visibility {value!r} of {name} by {by}",
            ("replace", "/visibility", value),
            given=given,
            by=by,
        )
        for name, given in GIVEN.items()
        for value in ("private", "public", "shared", None, 7, "")
        for by in ("owner", "admin")
    ),
    *(
        changing(f"activate by {by}", ("replace", "/status", "active"), given=DRAFTED, by=by)
        for by in EVERYBODY
    ),
    changing(
        "activate without what is required", ("add", "/status", "active"), given=(make("id"),)
    ),
    changing(
        "require and activate",
        ("add", "/string_required", "x"),
        ("add", "/status", "active"),
        given=(make("id"),),
    ),
    changing(
        "activate and change", ("add", "/status", "active"), ("add", "/str1", "x"), given=DRAFTED
    ),
    changing(
        "activate and describe",
        *(("add", "/status", "active"), ("add", "/description", "x")),
        given=DRAFTED,
    ),
    changing(
        "activate and publish",
        *(("add", "/status", "active"), ("add", "/visibility", "public")),
        given=DRAFTED,
        by="admin",
    ),
    changing(
        "publish and activate",
        *(("add", "/visibility", "public"), ("add", "/status", "active")),
        given=DRAFTED,
        by="admin",
    ),
    changing(
        "deactivate and activate",
        *(("add", "/status", "deactivated"), ("add", "/status", "active")),
        given=ACTIVE,
        by="admin",
    ),
    changing(
        "describe and deactivate",
        *(("add", "/description", "x"), ("add", "/status", "deactivated")),
        given=ACTIVE,
        by="admin",
    ),
    changing(
        "reactivate and describe",
        *(("add", "/status", "active"), ("add", "/description", "x")),
        given=DEACTIVATED,
        by="admin",
    ),
    changing(
        "describe and reactivate",
        *(("add", "/description", "x"), ("add", "/status", "active")),
        given=DEACTIVATED,
        by="admin",
    ),
    changing(
        "all of it",
        *(("add", "/description", "x"), ("add", "/status", "active")),
        *(("add", "/status", "deactivated"), ("add", "/status", "active")),
        ("add", "/visibility", "public"),
        given=DRAFTED,
        by="admin",
    ),
    changing("remove status", ("remove", "/status"), given=DRAFTED),
    changing("remove visibility", ("remove", "/visibility"), given=DRAFTED),
    changing("copy status", {"op": "copy", "from": "/name", "path": "/status"}, given=DRAFTED),
    *(
        exchange(
            f"{name} of {type_name}",
            patch(("add", "/status", "active"), of=type_name),
            make("id", of=type_name, **fields),
            *steps,
        )
        for name, type_name, fields, steps in (
            ("activate bare", "images", {}, ()),
            (
                "activate formatted",
                "images",
                {"disk_format": "raw", "container_format": "bare"},
                (),
            ),
            ("activate bare", "heat_templates", {}, ()),
            ("activate bare", "heat_environments", {}, ()),
            ("activate bare", "tosca_templates", {}, ()),
            ("activate bare", "murano_packages", {}, ()),
            ("activate named", "murano_packages", {"display_name": "x"}, ()),
            (
                "activate with its template",
                "heat_templates",
                {},
                (Step(request="PUT /artifacts/heat_templates/$id/template", body=b"x"),),
            ),
            (
                "activate with a location",
                "heat_environments",
                {},
                (
                    Step(
                        request="PUT /artifacts/heat_environments/$id/environment",
                        body={"url": "http://127.0.0.1:1/x", "md5": "x"},
                        headers={"Content-Type": LOCATION},
                    ),
                ),
            ),
        )
    ),
    # Whose names are taken when it is published.
    exchange(
        "publish what is public already",
        patch(("add", "/visibility", "public"), name="second", by="admin"),
        *PUBLIC,
        make("second", by="other", string_required="x"),
        patch(("add", "/status", "active"), name="second", by="other"),
    ),
    exchange(
        "publish another version",
        patch(("add", "/visibility", "public"), name="second", by="admin"),
        *PUBLIC,
        make("second", by="other", string_required="x", version="1"),
        patch(("add", "/status", "active"), name="second", by="other"),
    ),
    exchange(
        "publish what is private of others",
        PUBLISH,
        *ACTIVE,
        make("second", by="other"),
    ),
    exchange(
        "unpublish and describe", patch(("add", "/visibility", "private"), by="admin"), *PUBLIC
    ),
)
