"""What an operator's own rules change: a policy file each, and the answers under it.

The tables are as those of `tables.py`, with the callers and requests that matter. Whatever a rule
says: who may not get the image (`get_image`) does not learn of it by another request's answer.
"""

from collections.abc import Mapping
from typing import Final

# By what the operator wants: the rules of the file, and the tables under it.
OVERRIDES: Final[Mapping[str, tuple[Mapping[str, str], str]]] = {
    "readers download what their project owns, and public images": (
        {
            "download_image": "rule:context_is_admin or"
            " role:reader and (project_id:%(project_id)s or 'public':%(visibility)s)"
        },
        """
             admin  reader oreadr accept areadr srvc
download, download head
    private  ok     ok     404    404    404    404
    shared   ok     ok     404    403    403    404
    communty ok     ok     403    403    403    404
    public   ok     ok     ok     ok     ok     404
        """,
    ),
    "everybody copies public images to further stores": (
        {"copy_image": "rule:context_is_admin or 'public':%(visibility)s"},
        """
             admin  member other  oreadr srvc   anon
copy
    private  ok     403    404    404    404    403
    communty ok     403    403    403    404    403
    public   ok     ok     ok     ok     404    403
        """,
    ),
    "only administrators deactivate, as older documentation has it": (
        {"deactivate": "rule:context_is_admin"},
        """
             admin  mngr   member other  accept
deactivate
    shared   ok     403    403    404    403
reactivate
    shared   ok     ok     ok     404    403
        """,
    ),
    "nobody changes images, not administrators either": (
        {"modify_image": "!"},
        """
             admin  member reader other  accept
modify, modify old dialect, hide, give away, add tag, remove tag, stage, import staged
    shared   403    403    403    404    403
upload, deactivate, delete
    shared   ok     ok     403    404    403
        """,
    ),
    "managers publish images of their project, and administrators of another do not": (
        {"publicize_image": "role:manager and project_id:%(project_id)s"},
        """
             admin  mngr   member other
make public
    private  403    ok     403    404
make community
    private  ok     ok     ok     404
create public
             ok     ok     403    403
        """,
    ),
    "services administer, and administrators are users": (
        {"context_is_admin": "role:service"},
        """
             admin  member srvc   nova
show, download
    private  404    ok     ok     ok
    public   ok     ok     ok     ok
delete
    private  404    ok     ok     ok
    public   403    ok     ok     ok
give away
    private  404    403    ok     ok
    public   403    403    ok     ok
list tasks, create for another
             403    403    ok     ok
        """,
    ),
    "images are for their projects, whomever they were offered to": (
        {"get_image": "rule:context_is_admin or project_id:%(project_id)s"},
        """
             admin  member other  accept srvc
show, tasks
    shared   ok     ok     404    404    404
    public   ok     ok     404    404    404
modify, delete
    shared   ok     ok     404    404    404
    public   ok     ok     404    404    404
show accept
    shared   ok     ok     404    ok     404
        """,
    ),
    "public images are for people without a token, too": (
        {
            "get_images": "@",
            "get_image": "rule:context_is_admin or role:reader or 'public':%(visibility)s",
            "download_image": "rule:context_is_admin or role:member or 'public':%(visibility)s",
        },
        """
             admin  member oreadr srvc   anon
show
    private  ok     ok     404    404    404
    communty ok     ok     ok     404    404
    public   ok     ok     ok     ok     ok
download
    private  ok     ok     404    404    404
    communty ok     ok     403    404    404
    public   ok     ok     ok     ok     ok
modify, add tag, delete
    public   ok     ok     403    403    403
list
             ok     ok     ok     ok     ok
        """,
    ),
    "members see tasks": (
        {"tasks_api_access": "role:member"},
        """
             admin  member reader srvc   anon
list tasks, show task, delete task
             ok     ok     403    403    403
        """,
    ),
    "managers write definitions": (
        {"metadef_admin": "role:manager"},
        """
             admin  mngr   member srvc   anon
create namespace
             ok     ok     403    403    403
update namespace, create object, delete tag
    private  ok     ok     403    404    403
    public   ok     ok     403    404    403
        """,
    ),
    "owners see where their images are, and services do not": (
        {"fetch_image_location": "project_id:%(project_id)s"},
        """
             admin  member reader accept nova   srvc   anon
see locations
    shared   403    ok     ok     403    404    404    404
    public   403    ok     ok     403    403    404    404
        """,
    ),
    "managers offer images, and members see no other member nor themselves": (
        {
            "add_member": "role:manager and project_id:%(project_id)s",
            "get_members": "project_id:%(project_id)s",
            "get_member": "project_id:%(project_id)s",
        },
        """
             admin  mngr   member other  accept
add member
    shared   403    ok     403    404    403
list members
    shared   403    all    all    404    403
show accept
    shared   404    ok     ok     404    404
        """,
    ),
    "the details of stores are no secret": (
        {"stores_info_detail": "@"},
        """
             admin  reader srvc   anon
stores in detail
             ok     ok     ok     ok
        """,
    ),
}
