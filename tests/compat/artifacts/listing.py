"""The requests for lists of artifacts: filters, sorts and pages."""

from typing import Any, Final
from urllib.parse import quote

from tests.compat.artifacts.exchanges import ACTIVE, PUBLISH, get
from tests.compat.artifacts.form import EVERYBODY, SAMPLE, Exchange, Step, exchange, make, patch

# What the lists are of: three of the owner's, with another value in each field.
THREE: Final = (
    make(
        *("id",),
        name="alpha",
        version="1.0.0",
        description="first",
        tags=["a", "b"],
        metadata={"k": "v", "l": "w"},
        bool1=True,
        int1=1,
        int2=5,
        float1=0.5,
        str1="one",
        list_of_str=["x", "y"],
        list_of_int=[1, 2],
        dict_of_str={"k": "1", "l": "2"},
        dict_of_int={"1": 1, "2": 2},
        string_required="s",
        string_mutable="m",
        string_regex="0123abcd",
        int_validators=10,
    ),
    make(
        *("second",),
        name="beta",
        version="1.0.1-rc1",
        tags=["b", "c"],
        metadata={"k": "u"},
        int1=2,
        int2=5,
        float1=1.5,
        str1="two, three",
        list_of_str=["y", "z"],
        list_of_int=[2, 3],
        dict_of_str={"k": "2"},
        dict_of_int={"1": 2},
        string_required="t",
    ),
    make("third", name="Gamma 100%", version="1.0.1", tags=["d"], int1=3, str1='o"ne'),
)
# Names and versions for `latest`, private and public ones of two projects, of two types.
MANY: Final = (
    *(
        make("", name=name, version=version, string_required="x", int1=number)
        for number, (name, version) in enumerate(
            (
                *(("a", "1.0.0"), ("a", "1.0.1"), ("a", "1.0.1-rc1"), ("a", "0.9")),
                *(("b", "2.0.0-alpha.1"), ("b", "2.0.0-alpha.10"), ("b", "2.0.0-alpha.2")),
                *(("c", "1.0.0+a"), ("c", "1.0.0+b"), ("d", "10.0.0"), ("d", "9.9.9")),
            )
        )
    ),
    make("", name="a", version="1.0.1", by="other"),
    make("", name="b", version="3", by="other"),
    make("public", name="d", version="11", by="other", string_required="x"),
    patch(("add", "/status", "active"), name="public", by="other"),
    patch(("add", "/visibility", "public"), name="public", by="admin"),
    make("", name="a", version="5", of="images"),
    make("", name="z", version="1", of="heat_templates"),
)


def listing(
    query: str, given: Any = THREE, by: str = "owner", of: str = "sample_artifact"
) -> Exchange:
    told = f"list {of} {query[:80]}".replace("sample_artifact ", "").rstrip()
    told += ", many" if given is MANY else "" if given else ", none"
    told += "" if by == "owner" else f", by {by}"
    return exchange(told, get(f"/artifacts/{of}" + (f"?{query}" if query else ""), by), *given)


_FILTERS: Final = (
    *("name=alpha", "name=ALPHA", "name=eq:alpha", "name=neq:alpha", "name=in:alpha,beta", "name="),
    *("name=like:al%25", "name=like:AL%25", "name=like:%25a%25", "name=like:_eta", "name=like:be"),
    *("name=like:%25100%5C%25", "name=gt:a", "name=x:y", "name=eq:x:y", "name=and:alpha"),
    *("name=or:alpha", "name=or:eq:alpha", "name=or:eq", "name=or:eq:alpha:x", "name=and:tt:t"),
    *("name=or:alpha&name=or:beta", "name=or:alpha&int1=or:2&str1=one", "name=or:alpha&int1=2"),
    *("name=alpha&name=beta", "name=in:", "name=in:alpha,", 'name=in:"alpha"', 'name=in:"alpha'),
    *('name=in:"alpha",beta', 'name=in:"alpha"beta', 'name=in:a"b"', "name=" + "n" * 256),
    *("name=Gamma+100%25", "name=%D0%9A%D0%B8%D1%80", "name=a%00b", "name=%ff", "name=:"),
    *("name=::", "name=eq:", "name=like:", "name=neq:", "name=in:,", "name=or:", "name=and:or:a"),
    *("id=$id", "id=in:$id,$second", "id=neq:$id", "id=nonsense", "id=$absent", "id=like:a"),
    *("owner=demo", "owner=other", "owner=neq:demo", "owner=in:demo,other", "owner=" + "o" * 256),
    *("status=drafted", "status=active", "status=deleted", "status=nonsense", "status=neq:active"),
    *("status=in:drafted,active", "status=in:drafted,nonsense", "status=like:d"),
    *("visibility=private", "visibility=public", "visibility=blabla", "visibility=neq:blabla"),
    *("visibility=in:private,public", "description=first", "description=eq:first"),
    *("created_at=gt:2020-01-01T00:00:00Z", "created_at=lt:2020-01-01T00:00:00Z"),
    *("created_at=eq:2020-01-01T00:00:00Z", "created_at=2020-01-01T00:00:00Z", "created_at=x"),
    *("created_at=gte:2020-01-01T00:00:00Z", "created_at=gt:x", "created_at=gt:2020-01-01"),
    *("created_at=gt:2020-01-01T00:00:00", "created_at=gt:2020-01-01T00:00:00%2B02:00"),
    *(
        "created_at=or:lt:2020-01-01T00:00:00Z&name=or:alpha",
        "activated_at=gt:2020-01-01T00:00:00Z",
    ),
    *("updated_at=lt:2999-01-01T00:00:00Z", "updated_at=gt:1&name=alpha", "created_at=in:x"),
    *("version=1.0.0", "version=1", "version=1.0", "version=INVALID", "version=", "version=gt:1"),
    *("version=gte:1.0.1", "version=lt:1.0.1", "version=lte:1.0.1-rc1", "version=neq:1.0.0"),
    *("version=in:1.0.0,1.0.1", "version=in:1,2", "version=like:1%25", "version=gt:65536"),
    *("version=eq:1.0.1-rc1", "version=in:1,x", "version=1.0.0%2Bbuild", "version=gt:1-0"),
    *("display_type_name=Sample+Artifact", "display_type_name=like:Sample%25"),
    *("type_name=sample_artifact", "nothing=x", "name.x=y", "=x", "x", "fields=name"),
    *("tags=a", "tags=b", "tags=a,b", "tags=a,c", "tags=", "tags=a&tags=b", "tags=or:a", "tags=A"),
    *("tags=or:a,b&name=or:Gamma+100%25", "tags=in:a", "tags=eq:a", "tags=and:a", "tags=a:b"),
    *("tags=or:a&tags=or:d", "tags=or:a&tags=or:b", "tags-any=a,c", "tags-any=", "tags-any=in:a"),
    *("tags-any=or:a&name=or:beta", "tags-any=nothing", "tags-any=a&tags=b", "tags=" + "t" * 300),
    *("tags=a,a", "tags=,", "tags-any=a,,d", "tags.x=a", "tags=neq:a"),
    *("metadata=k", "metadata=in:k,l", "metadata=eq:k", "metadata=neq:k", "metadata.k=v"),
    *("metadata.k=neq:v", "metadata.k=in:u,v", "metadata.x=v", "metadata.=v", "metadata.k="),
    *("metadata.k.x=v", "metadata=like:k", "metadata.k=gt:v", "metadata=nothing", "metadata="),
    *("bool1=true", "bool1=false", "bool1=yes", "bool1=nonsense", "bool1=neq:true", "bool1=1"),
    *("bool2=false", "bool1=in:true", "int1=1", "int1=eq:2", "int1=neq:1", "int1=gt:1"),
    *("int1=gte:2", "int1=lt:2", "int1=lte:2", "int1=in:1,3", "int1=x", "int1=", "int1=1.5"),
    *("int1=gt:1&int1=lt:3", "int1=or:1&int1=or:3", "int1=in:1,x", "int1=like:1", "int1=gt:x"),
    *("int1=2147483648", "int1=99999999999999999999", "int1=-1", "int2=5&int1=2", "int1=nothing:1"),
    *("float1=0.5", "float1=gt:1", "float1=in:0.5,1.5", "float1=x", "float1=nan", "float1=1.50"),
    *("str1=one", "str1=like:o%25", 'str1=in:"two, three",one', "str1=in:two,one", "str1=neq:one"),
    *('str1=in:"o\\"ne"', "str1=gt:a", "str1=", "str1=eq:", "str1=or:eq:blabla:t:tt", "str1=a:b:c"),
    *("list_of_str=x", "list_of_str=y", "list_of_str=in:x,z", "list_of_str=neq:x"),
    *("list_of_str=x&list_of_str=y", "list_of_int=2", "list_of_int=in:1,3", "list_of_int=x"),
    *("list_of_str.x=y", "list_of_str=", "list_of_str=eq:x", "list_of_int=gt:1"),
    *("dict_of_str=k", "dict_of_str=l", "dict_of_str=in:k,l", "dict_of_str=k&dict_of_str=l"),
    *("dict_of_str.k=1", "dict_of_str.k=in:1,2", "dict_of_str.k=neq:1", "dict_of_str.=1"),
    *(
        "dict_of_str.l=2",
        "dict_of_int.1=1",
        "dict_of_int.1=lala",
        "dict_of_int=1",
        "dict_of_int.3=1",
    ),
    *("dict_of_str=nothing", "dict_of_str.k", "int1.x=1", "dict_of_int.1=gt:0", "name=a&name="),
    *(
        "dict_of_str=gt:k",
        "dict_of_str.k=or:1&name=or:beta",
        "dict_of_links=a",
        "dict_of_links.a=x",
    ),
    *("string_regex=0123abcd", "string_regex=x", "string_mutable=m", "int_validators=10"),
    *("int_validators=9", "string_validators=aa", "string_validators=nothing", "string_required=s"),
    *("list_validators=a", "dict_validators=abc", "dict_validators.abc=x", "dict_validators.zzz=x"),
    *("blob=x", "blob.size=1", "dict_of_blobs=x", "dict_of_blobs.x=y", "small_blob=", "blob.url=x"),
    *("link1=https://example.org/1", "link1=eq:https://example.org/1", "link1=x", "link2="),
    *("system_attribute=default", "system_attribute=neq:default", "metadata_attribute=default"),
    *(
        "list_of_links=x",
        "sort=name&name=alpha",
        "limit=1&name=alpha",
        "name=alpha&limit=1&limit=2",
    ),
    *("__some_meta_information__=ALPHA", "name=alpha;int1=1", "name=alpha&&int1=1", "&name=alpha"),
    *("name=alpha&int1=1&str1=one&tags=a&metadata.k=v", "name=null", "int1=null", "str1=None"),
)
_SORTS: Final = (
    *("name", "name:asc", "name:desc", "name:up", "name:", ":asc", "", "nothing", "nothing:asc"),
    *("int1", "int1:asc", "int2:asc,name:asc", "int1:asc,int2:asc", "str1", "str1:asc,name"),
    *("version", "version:asc", "version:desc,name:asc", "created_at", "created_at:asc"),
    *("updated_at:asc", "activated_at", "status:asc,name:asc", "visibility", "owner,name:asc"),
    *("display_type_name", "description", "tags", "metadata", "metadata.k", "blob"),
    *("list_of_str", "bool1", "float1:asc", "system_attribute,name:asc", "name:asc,name:desc"),
    *("name:ASC", "string_mutable", "dict_of_str.k", "type_name", "name:asc,", "name,nothing"),
    *("name :asc", "+name", "int1:asc,name:asc", "string_required:asc"),
)
_PAGES: Final = (
    *("limit=1", "limit=2", "limit=3", "limit=4", "limit=0", "limit=-1", "limit=x", "limit="),
    *("limit=1.5", "limit=99999", "limit=1&marker=$third", "limit=1&marker=$second"),
    *("marker=$id", "marker=$second", "marker=$third", "marker=$absent", "marker=nonsense"),
    *("marker=", "limit=1&sort=name:asc", "limit=1&sort=name:asc&marker=$id"),
    *("limit=1&sort=name:asc&marker=$second", "limit=2&sort=int1:asc&marker=$id"),
    *("limit=2&sort=version:asc&marker=$id", "limit=2&sort=int1:desc&marker=$third&int1=gt:1"),
    *("limit=2&sort=created_at:asc&marker=$id", "limit=1&name=in:alpha,beta", "limit=1&tags=b"),
    *("limit=1&int1=gt:0&int1=lt:3", "limit=1&marker=$third&name=alpha", "limit=2&marker=$id&x=y"),
    *("sort=float1:asc&limit=1", "sort=float1:asc&limit=1&marker=$third", "sort=int2:asc&limit=1"),
    *("sort=name:asc&sort=int1:asc", "marker=$id&marker=$second", "limit=1&name=like:%25a%25"),
    *(
        "limit=1&name=neq:%D0%9A",
        "sort=int2:asc,name:desc&marker=$second",
        "limit=1&str1=neq:a%26b",
    ),
    *("limit=1&version=latest", "LIMIT=1", "limit=01", "limit=+1"),
)
_LATEST: Final = (
    *("version=latest", "version=latest&name=a", "version=latest&name=b", "version=latest&name=c"),
    *("version=latest&int1=lt:2", "version=latest&int1=or:0&int1=or:3", "version=latest&limit=2"),
    *(
        "version=latest&sort=name:asc",
        "version=latest&version=gte:1",
        "version=latest&version=lt:1",
    ),
    *(
        "version=latest&version=latest",
        "version=latest&status=drafted",
        "version=latest&name=like:d",
    ),
    *(
        "version=latest&visibility=private",
        "version=latest&sort=name:asc&limit=2",
        "version=Latest",
    ),
    *("version=eq:latest", "version=latest&owner=other", "version=latest&name=nothing"),
    *("name=d", "sort=name:asc,version:asc", "sort=version:desc,name:asc", "limit=1000"),
    *("sort=name:asc,int1:desc", "version=gt:1.0.1-rc1&name=a&sort=version:asc", "version=lte:1"),
    *("version=1.0.0&name=c", "version=1.0.0%2Ba", "version=gte:1.0.0%2Bb&name=c&sort=version"),
    *("version=in:1.0.1,1.0.1-rc1&sort=version,name", "version=neq:1.0.1&name=a&sort=version"),
)
_OF_ALL: Final = (
    *(
        "name=a",
        "type_name=images",
        "type_name=in:images,heat_templates",
        "type_name=like:%25s",
    ),
    *("type_name=neq:images", "type_name=nothing", "sort=type_name:asc,name:asc", "int1=1"),
    *("display_type_name=like:Heat%25", "version=latest", "version=latest&name=a", "sort=int1"),
    *("limit=3&sort=name:asc", "type_name=gt:a", "name=a&sort=version:asc", "tags=a", "blob=x"),
    *("display_type_name=Images", "metadata.k=v", "limit=0", "image=x"),
)
_TITLE: Final = "Кириллица 1"

LISTS: Final = (
    listing(""),
    *(listing(query) for query in (*_FILTERS, *_PAGES)),
    *(listing(f"sort={keys}") for keys in _SORTS),
    *(listing(query, MANY) for query in _LATEST),
    *(listing(query, MANY, by) for by in ("admin", "other") for query in _LATEST[:12]),
    *(listing(query, MANY, of="all") for query in _OF_ALL),
    *(listing("", MANY, by, of) for by in EVERYBODY for of in ("sample_artifact", "all")),
    *(listing("", (), of=of) for of in ("sample_artifact", "all", "images", "nothing", "secrets")),
    listing("marker=$id", (*ACTIVE, make("second", name="b", by="other")), by="other"),
    exchange(
        "list, marker of another type",
        get("/artifacts/images?marker=$id"),
        make("id"),
        make("second", of="images"),
    ),
    exchange(
        "list, marker of another's",
        get(f"{SAMPLE}?marker=$second"),
        make("id"),
        make("second", by="other"),
    ),
    exchange(
        "list with Cyrillic letters",
        get(f"{SAMPLE}?name={quote(_TITLE)}&limit=1"),
        Step(request=f"POST {SAMPLE}", body={"name": _TITLE}, makes="id"),
    ),
    exchange(
        "list by what has colons",
        get(f"{SAMPLE}?name=eq:a:b"),
        make("id", name="a:b"),
    ),
    exchange(
        "list by a link",
        get(f"{SAMPLE}?link1={SAMPLE}/$id"),
        make("id"),
        make("second", name="b", link1=f"{SAMPLE}/$id"),
    ),
    exchange(
        "list deactivated and public",
        get(f"{SAMPLE}?sort=name:asc", "other"),
        *ACTIVE,
        PUBLISH,
        patch(("add", "/status", "deactivated"), by="admin"),
        make("second", name="b"),
    ),
)
