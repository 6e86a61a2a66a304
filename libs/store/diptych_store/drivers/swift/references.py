"""Whose credentials a store uses: from its own options, or from Glance's file of references."""

import configparser
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from diptych_store.options.swift import SwiftOptions


@dataclass(frozen=True, slots=True)
class Domain:
    """A domain of Keystone, by id or by name."""

    id: str = "default"
    name: str = ""

    def document(self) -> dict[str, str]:
        """As Keystone's API has it."""
        return {"name": self.name} if self.name else {"id": self.id}


@dataclass(frozen=True, slots=True)
class Reference:
    """One account's credentials: user and key, or those of an application.

    `project` is empty where nobody says it: an application credential is bound to one.
    """

    address: str
    version: str
    user: str = ""
    project: str = ""
    key: str = field(default="", repr=False)
    application_id: str = field(default="", repr=False)
    application_secret: str = field(default="", repr=False)
    user_domain: Domain = Domain()
    project_domain: Domain = Domain()


def read(options: SwiftOptions) -> dict[str, Reference]:
    """The references by name; a store's own options make the one of `default_swift_reference`.

    Raises ValueError, without a secret in it, where something is missing.
    """
    default = options.default_swift_reference
    if options.swift_store_config_file:
        found = _from_file(Path(options.swift_store_config_file), options.swift_store_auth_version)
        if default not in found:
            raise ValueError(f"swift_store_config_file has no section {default}.")
        return found
    return {
        default: _reference(
            {
                "auth_address": options.swift_store_auth_address,
                "user": options.swift_store_user,
                "key": options.swift_store_key.get_secret_value(),
                "application_credential_id": options.swift_store_application_credential_id,
                "application_credential_secret": (
                    options.swift_store_application_credential_secret.get_secret_value()
                ),
            },
            version=options.swift_store_auth_version,
            called="swift_store_{}",
        )
    }


def _from_file(path: Path, version: str) -> dict[str, Reference]:
    # Values are taken as they stand, but for quotes around them: a key may hold a `%`.
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read_string(path.read_text())
    except OSError as error:
        raise ValueError(
            f"swift_store_config_file {path} cannot be read: {error.strerror}"
        ) from None
    except (configparser.Error, UnicodeDecodeError):
        # The parser's own words quote the line, which may be a key's.
        raise ValueError(f"swift_store_config_file {path} is no file of sections.") from None
    return {
        section: _reference(
            {option: _unquoted(value) for option, value in parser.items(section)},
            version=version,
            called=f"{{}} of section {section}",
        )
        for section in parser.sections()
    }


def _reference(values: Mapping[str, str], *, version: str, called: str) -> Reference:
    """The reference with these values; `called` makes an operator's word of an option's name."""

    def needed(option: str) -> str:
        value = values.get(option, "")
        if not value:
            raise ValueError(f"{called.format(option)} is needed.")
        return value

    # Glance reads any version in the file as 3; 1 is ours, for tempauth.
    version = "1" if values.get("auth_version", version) in ("1", "1.0") else "3"
    address = needed("auth_address").rstrip("/")
    if "://" not in address:
        address = f"https://{address}"
    user_domain = _domain(values, "user_domain")
    project_domain = _domain(values, "project_domain")
    application_id = values.get("application_credential_id", "")
    secret = values.get("application_credential_secret", "")
    if bool(application_id) != bool(secret):
        raise ValueError("An application credential needs both its id and its secret.")
    if application_id:
        return Reference(
            address=address,
            version=version,
            application_id=application_id,
            application_secret=secret,
            user_domain=user_domain,
            project_domain=project_domain,
        )
    user, key = needed("user"), needed("key")
    project, colon, name = user.partition(":")
    if version == "3" and not (colon and project and name):
        raise ValueError(f"{called.format('user')}: expected `project:user`.")
    return Reference(
        address=address,
        version=version,
        user=name if colon else user,
        project=project if colon else "",
        key=key,
        user_domain=user_domain,
        project_domain=project_domain,
    )


def _domain(values: Mapping[str, str], prefix: str) -> Domain:
    name, id = values.get(f"{prefix}_name", ""), values.get(f"{prefix}_id", "")
    return Domain(id=id or "default", name="" if id else name)


def _unquoted(value: str) -> str:
    if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'":
        return value[1:-1]
    return value
