"""``[[realm]]``: accounts that belong together, and what they may submit."""

from collections.abc import Mapping
from datetime import date
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, StringConstraints

from digipoort_msa.config.certificate import Certificate
from digipoort_msa.config.delivery import Delivery
from digipoort_msa.config.policy import Policy
from digipoort_msa.config.queue import Notification, Queue
from digipoort_msa.config.stores.cred import Cred
from digipoort_msa.config.stores.http import Http
from digipoort_msa.config.stores.ldap import Ldap
from digipoort_msa.config.stores.passwd import Passwd
from digipoort_msa.config.stores.sql import Sql
from digipoort_msa.config.tables import AccountName, AddressPattern, Count, Flag, Table, Text, Wait

Mechanism = Literal["EXTERNAL", "SCRAM-SHA-256-PLUS", "SCRAM-SHA-256", "DIGEST-MD5", "PLAIN", "LOGIN"]


class Realm(Table):
    """``[[realm]]``: accounts that belong together, and what they may submit.

    A pattern is an address in which ``*`` stands for any run of characters, such as ``*@example.nl``.
    """

    #: Keys that were here before, and what stands for them now.
    moved: ClassVar[Mapping[str, str]] = {
        "url": "sql.url",
        "bind-sender": 'a policy with rule = "sender"',
        "senders": 'a policy with rule = "sender", and its patterns',
        "sender-addresses": "addresses",
        "recipients": 'a policy with rule = "recipients"',
        "required-headers": 'a policy with rule = "profile"',
        "header-patterns": 'a policy with rule = "profile"',
        "maximum-header-size": 'a policy with rule = "profile"',
    }

    name: Annotated[str, StringConstraints(pattern=r"^[!#-?A-\[\]-~]+$")] = Field(
        description="the realm's name, as DIGEST-MD5 and user@realm logins say it: "
        "ASCII without space, quote, backslash or @"
    )
    store: Text = Field(
        default="sql",
        description='where the accounts are kept: "sql", "passwd", "ldap", "cred", "http", or the name of an '
        "installed plug-in",
    )
    sql: Sql = Sql()
    passwd: Passwd = Passwd()
    ldap: Ldap = Ldap()
    cred: Cred = Cred()
    http: Http = Http()
    plugin: dict[str, Any] = Field(default={}, description="a table: the settings of a plug-in")
    mechanisms: tuple[Mechanism, ...] = Field(
        default=("DIGEST-MD5", "PLAIN", "LOGIN"),
        min_length=1,
        description="a list of EXTERNAL, SCRAM-SHA-256-PLUS, SCRAM-SHA-256, DIGEST-MD5, PLAIN and LOGIN",
    )
    digest_md5_until: date | None = Field(
        default=None,
        description="a date: the last day (UTC) of DIGEST-MD5; an account may have an earlier one",
    )
    prepare_scram: Flag = Field(
        default=False,
        description="true or false: password logins make keys for SCRAM although it is not offered yet",
    )
    scram_iterations: Annotated[Count, Field(ge=4096, le=600000)] = Field(
        default=100000,
        description="from 4096 to 600000: rounds of PBKDF2 in new SCRAM keys; clients bear them",
    )
    refusal_time: Wait = Field(
        default=0.5,
        description="seconds: where the accounts are not in our own tables, a refusal takes so long (or "
        "twice, or thrice), so that it does not tell whether there is such an account; it has to be more "
        "than a verification takes there",
    )
    certificate: tuple[Certificate, ...] = Field(
        default=(), description="[[realm.certificate]]: rules, the first that fits decides"
    )
    addresses: dict[AccountName, tuple[AddressPattern, ...]] = Field(
        default={},
        description="a table of account = [patterns]: its own addresses, besides those its store says",
    )
    policy: tuple[Policy, ...] = Field(
        default=(), description="[[realm.policy]]: rules, asked in their order"
    )
    add_missing_headers: Flag = Field(
        default=False, description="true or false: give a message without Date or Message-ID one (RFC 6409 8)"
    )
    delivery: Delivery | None = Field(default=None, description="a table, as [delivery]")
    queue: Queue | None = Field(default=None, description="a table, as [queue]")
    notification: Notification | None = Field(default=None, description="a table, as [notification]")
