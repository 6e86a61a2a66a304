"""What the images service takes from a Glance file."""

import pickle
from pathlib import Path

import pytest
from diptych_common.settings import SettingsError
from diptych_images.settings import ImagesSettings, delivers, load, stores, with_leftovers
from diptych_store.options.filesystem import FilesystemOptions
from diptych_store.settings import StoreConfig

# As deployment tools write it, with what they set that has no effect here.
GLANCE_FILE = """
[DEFAULT]
debug = True
log_file = /var/log/glance/glance-api.log
worker_self_reference_url = http://node1:9292
bind_host = 10.0.0.1
bind_port = 9292
workers = 5
enabled_backends = http:http, cheap:file, fast:rbd
enabled_import_methods = [glance-direct,web-download]
show_image_direct_url = True
image_size_cap = 5497558138880
node_staging_uri = file:///var/lib/glance/staging
transport_url = rabbit://openstack:pw@10.0.0.9:5672//
image_cache_driver = centralized_db

[database]
connection = mysql+pymysql://glance:pw@10.0.0.10:3306/glance
connection_recycle_time = 10
max_pool_size = 1
max_retries = -1

[keystone_authtoken]
service_type = image
www_authenticate_uri = http://10.0.0.10:5000
auth_url = http://10.0.0.10:5000
auth_type = password
project_domain_id = default
user_domain_id = default
project_name = service
username = glance
password = pw
cafile =
region_name = RegionOne
memcached_servers = 10.0.0.1:11211
memcache_security_strategy = ENCRYPT

[paste_deploy]
flavor = keystone

[glance_store]
default_backend = cheap

[cheap]
filesystem_store_datadir = /var/lib/glance/images/

[fast]
rbd_store_user = glance

[os_glance_staging_store]
filesystem_store_datadir = /var/lib/glance/staging

[oslo_middleware]
enable_proxy_headers_parsing = True

[oslo_messaging_notifications]
transport_url = rabbit://openstack:pw@10.0.0.9:5672//
driver = messagingv2

[oslo_policy]
policy_file = policy.yaml

[image_format]
disk_formats = ami,ari,aki,vhd,vmdk,raw,qcow2,vdi,iso,ploop,gpt
vmdk_allowed_types =
"""


@pytest.fixture
def glance_file(tmp_path: Path) -> Path:
    file = tmp_path / "glance-api.conf"
    file.write_text(GLANCE_FILE)
    return file


def test_a_glance_file_is_taken_as_it_is(glance_file: Path) -> None:
    loaded = load(config_files=[glance_file], environ={})
    settings, default = loaded.settings, loaded.settings.default
    assert default.workers == 5
    assert default.show_image_direct_url is True
    assert default.image_size_cap == 5497558138880
    assert default.enabled_import_methods == ("glance-direct", "web-download")
    assert settings.keystone_authtoken.password is not None
    assert settings.keystone_authtoken.password.get_secret_value() == "pw"
    assert settings.keystone_authtoken.cafile is None
    assert settings.paste_deploy.identity == "keystone"
    assert settings.oslo_middleware.enable_proxy_headers_parsing is True
    assert settings.image_format.disk_formats[-1] == "gpt"
    assert settings.image_format.vmdk_allowed_types == ()
    assert settings.oslo_messaging_notifications.driver == "messagingv2"


def test_nothing_in_a_glance_file_is_unknown_and_what_has_no_effect_is_told(
    glance_file: Path,
) -> None:
    loaded = load(config_files=[glance_file], environ={})
    assert loaded.unknown == ()
    assert {(one.section, one.option) for one in loaded.unused} == {
        ("DEFAULT", "image_cache_driver"),
        ("database", "max_retries"),
        ("keystone_authtoken", "memcached_servers"),
        ("keystone_authtoken", "memcache_security_strategy"),
    }


def test_a_transport_url_that_cannot_be_read_is_refused_without_its_password() -> None:
    loaded = load(
        environ={
            "DIPTYCH_IMAGES__OSLO_MESSAGING_NOTIFICATIONS__DRIVER": "messagingv2",
            "DIPTYCH_IMAGES__DEFAULT__TRANSPORT_URL": "kafka://user:open-sesame@host/",
        }
    )
    with pytest.raises(SettingsError, match="transport_url must be rabbit://") as refused:
        delivers(loaded)
    assert "open-sesame" not in str(refused.value)


def test_sections_of_stores_are_handed_on(glance_file: Path) -> None:
    loaded = load(
        config_files=[glance_file],
        environ={"DIPTYCH_IMAGES__FAST__RBD_STORE_POOL": "images"},
    )
    assert loaded.sections["fast"] == {"rbd_store_user": "glance", "rbd_store_pool": "images"}
    assert loaded.sections["glance_store"] == {"default_backend": "cheap"}
    assert {"fast", "glance_store"} <= set(loaded.elsewhere)


def test_a_store_that_is_not_enabled_is_unknown(tmp_path: Path) -> None:
    file = tmp_path / "images.conf"
    file.write_text("[DEFAULT]\nenabled_backends = a:file\n[b]\nfilesystem_store_datadir = /b\n")
    (unknown,) = load(config_files=[file], environ={}).unknown
    assert (unknown.section, unknown.option) == ("b", "filesystem_store_datadir")


def test_a_misspelt_option_in_a_section_of_glances_is_unknown(tmp_path: Path) -> None:
    file = tmp_path / "images.conf"
    file.write_text("[database]\nconection = x\n[keystone_authtoken]\npasword = x\n")
    assert [one.option for one in load(config_files=[file], environ={}).unknown] == [
        "conection",
        "pasword",
    ]


def test_what_was_read_can_be_handed_to_another_process(glance_file: Path) -> None:
    loaded = load(config_files=[glance_file], environ={})
    assert pickle.loads(pickle.dumps(loaded)) == loaded


def test_defaults_are_those_of_glance() -> None:
    # Source: images API inventory, "Config options we must recognise".
    settings = ImagesSettings()
    default = settings.default
    assert default.hashing_algorithm == "sha512"
    assert default.image_size_cap == 1099511627776
    assert default.image_member_quota == default.image_property_quota == 128
    assert default.image_tag_quota == 128
    assert (default.limit_param_default, default.api_limit_max) == (25, 1000)
    assert not default.show_image_direct_url
    assert not default.show_multiple_locations
    assert not default.allow_anonymous_access
    assert default.max_request_id_length == 64
    assert default.enabled_import_methods == ("glance-direct", "web-download", "copy-image")
    assert settings.image_format.require_image_format_match
    assert settings.image_format.gpt_safety_checks_nonfatal == ()
    assert settings.image_format.vmdk_allowed_types == ("streamOptimized", "monolithicSparse")
    assert settings.oslo_policy.enforce_scope
    assert settings.oslo_policy.enforce_new_defaults
    assert settings.keystone_authtoken.service_token_roles_required


def test_a_bad_value_stops_the_service_with_its_place(tmp_path: Path) -> None:
    file = tmp_path / "images.conf"
    file.write_text("[DEFAULT]\nhashing_algorithm = md5\n")
    with pytest.raises(SettingsError) as error:
        load(config_files=[file], environ={})
    assert str(error.value) == (
        f"{file}:2: [DEFAULT] hashing_algorithm = md5: expected one of sha512, sha384, sha256, sha1"
    )


def test_barbican_is_where_glances_options_say(tmp_path: Path) -> None:
    file = tmp_path / "images.conf"
    file.write_text(
        "[barbican]\nbarbican_endpoint = https://key-manager.example:9311/\n"
        "barbican_api_version = v1\nauth_endpoint = http://10.0.0.10:5000/v3\n"
        "barbican_endpoint_type = internal\nbarbican_region_name = One\n"
        "verify_ssl_path = /etc/ca.pem\nnumber_of_retries = 3\nbarbican_endpont = x\n"
        "[key_manager]\nbackend = barbican\n"
    )
    loaded = load(config_files=[file], environ={})
    barbican = loaded.settings.barbican
    assert barbican.barbican_endpoint == "https://key-manager.example:9311/"
    assert (barbican.barbican_endpoint_type, barbican.barbican_region_name) == ("internal", "One")
    assert (barbican.verify_ssl, barbican.verify_ssl_path) == (True, "/etc/ca.pem")
    assert {(one.section, one.option) for one in loaded.unused} == {
        ("barbican", "auth_endpoint"),
        ("barbican", "number_of_retries"),
        ("key_manager", "backend"),
    }
    assert [one.option for one in loaded.unknown] == ["barbican_endpont"]


@pytest.mark.parametrize("url", ["key-manager", "ftp://host", "http://user@host", "http://h/?a"])
def test_an_endpoint_of_barbican_is_a_url(url: str) -> None:
    with pytest.raises(SettingsError, match=r"barbican_endpoint.*an http:// or https:// URL"):
        load(environ={"DIPTYCH_IMAGES__BARBICAN__BARBICAN_ENDPOINT": url})


def test_a_bad_store_option_is_told_with_its_file(tmp_path: Path) -> None:
    file = tmp_path / "images.conf"
    file.write_text(
        "[DEFAULT]\nenabled_backends = fast:file\n[glance_store]\ndefault_backend = slow\n"
    )
    with pytest.raises(SettingsError) as refused:
        stores(load(config_files=[file], environ={}))
    text = str(refused.value)
    assert f"{file}:4: [glance_store] default_backend: expected" in text


def staging(tmp_path: Path, text: str) -> StoreConfig | None:
    file = tmp_path / "images.conf"
    file.write_text(text)
    return stores(load(config_files=[file], environ={})).staging


def test_node_staging_uri_is_a_file_store_of_that_directory(tmp_path: Path) -> None:
    found = staging(tmp_path, "[DEFAULT]\nnode_staging_uri = file:///srv/staging/\n")
    assert found == StoreConfig(
        name="os_glance_staging_store",
        type="file",
        options=FilesystemOptions(filesystem_store_datadir="/srv/staging/"),
    )


def test_unset_it_is_not_glances_directory_of_each_node(tmp_path: Path) -> None:
    assert staging(tmp_path, "[DEFAULT]\nnode_staging_uri =\n") is None


@pytest.mark.parametrize(
    "uri", ["/srv/staging", "file://srv/staging", "http://host/staging", "file://", "s3://a/b"]
)
def test_a_node_staging_uri_of_another_form_is_told_with_its_place(
    tmp_path: Path, uri: str
) -> None:
    with pytest.raises(SettingsError) as refused:
        staging(tmp_path, f"[DEFAULT]\nnode_staging_uri = {uri}\n")
    place = f"{tmp_path / 'images.conf'}:2: [DEFAULT] node_staging_uri"
    assert str(refused.value) == f"{place}: expected file:// and an absolute path"


def test_staging_in_the_directory_of_images_is_told_with_its_place(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r":2: \[DEFAULT\] node_staging_uri: expected another"):
        staging(tmp_path, "[DEFAULT]\nnode_staging_uri = file:///var/lib/glance/images\n")


@pytest.mark.parametrize(
    "rest",
    [
        "enabled_backends = a:file\n[glance_store]\ndefault_backend = a\n",
        "[os_glance_staging_store]\nfilesystem_store_datadir = /srv/other\n",
    ],
)
def test_node_staging_uri_yields_to_the_store_of_that_name(tmp_path: Path, rest: str) -> None:
    file = tmp_path / "images.conf"
    file.write_text(f"[DEFAULT]\nnode_staging_uri = file:///srv/staging\n{rest}")
    (told,) = with_leftovers(load(config_files=[file], environ={})).unused
    assert (told.section, told.option) == ("DEFAULT", "node_staging_uri")
    assert told.reason == "[os_glance_staging_store] says where staging is"
    found = stores(load(config_files=[file], environ={})).staging
    assert found is None or [*found.options.places()] == ["/srv/other"]
