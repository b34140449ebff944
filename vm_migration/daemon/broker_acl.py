"""Who may publish and read what at the site's broker, as Mosquitto's acl_file; docs/asyncapi.yaml has the topics.

::

    host          writes agent/{host}/#, and reads nothing
    orchestrator  writes orchestrator/#, migration/#, machine/# and evacuation/#: several over one store differ by
                  names of theirs
    operator      the same: its commands drive where no orchestrator runs
    viewer        reads everything of the site

Usage: python -m vm_migration.daemon.broker_acl SITE host=host-a orchestrator=main viewer=board ... [--passwords]

Everything else is refused, an anonymous client everything. Names are the subjects of `viaduct pki` certificates, as
`use_subject_as_username` writes them; where users have passwords, ROLE/NAME.
"""

import argparse
import sys
from collections.abc import Iterable
from typing import Final

from vm_migration.daemon.status_topics import Topics
from vm_migration.link.identity import Identity, Role

_HEAD: Final = (
    "# Who may do what on the topics of site {site}, written from its identities. What is not allowed is refused.",
    "# mosquitto.conf: acl_file THIS FILE, allow_anonymous false, and for certificates use_subject_as_username true.",
)
_OF_WHO_DRIVES: Final = ("orchestrator", "migration", "machine", "evacuation")


def certificate_user(identity: Identity) -> str:
    """Return the user that Mosquitto takes the holder of an identity's certificate for."""
    return f"CN={identity.name},OU={identity.role},O={identity.site}"


def password_user(identity: Identity) -> str:
    """Return the user name of an identity where the broker knows users by password."""
    return f"{identity.role}/{identity.name}"


def broker_acl(site: str, identities: Iterable[Identity], *, passwords: bool = False) -> str:
    """Return the file's text; `passwords` names users as a password file does.

    Raises:
        InvalidInput: The site's name cannot be part of a topic.
    """
    user = password_user if passwords else certificate_user
    lines = [line.format(site=site) for line in _HEAD]
    for identity in identities:
        lines += ["", f"user {user(identity)}", *(f"topic {rule}" for rule in _rules(Topics(site), identity))]
    return "\n".join(lines) + "\n"


def _rules(topics: Topics, identity: Identity) -> tuple[str, ...]:
    site = topics.prefix
    match identity.role:
        case Role.HOST:
            return (f"write {site}/agent/{identity.name}/#",)
        case Role.ORCHESTRATOR | Role.OPERATOR:
            return tuple(f"write {site}/{part}/#" for part in _OF_WHO_DRIVES)
        case Role.VIEWER:
            return (f"read {site}/#",)


def _main() -> None:
    parser = argparse.ArgumentParser(prog="python -m vm_migration.daemon.broker_acl")
    parser.add_argument("site")
    parser.add_argument("identity", nargs="+", metavar="ROLE=NAME", help=f"role: {', '.join(Role)}")
    parser.add_argument(
        "--passwords", action="store_true", help="users are ROLE/NAME, not the subjects of certificates"
    )
    options = parser.parse_args()
    identities = []
    for text in options.identity:
        role, _, name = text.partition("=")
        if role not in set(Role):
            parser.error(f"No such role: {role}")
        identities.append(Identity(options.site, Role(role), name))
    sys.stdout.write(broker_acl(options.site, identities, passwords=options.passwords))


if __name__ == "__main__":
    _main()
