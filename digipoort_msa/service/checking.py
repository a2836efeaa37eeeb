"""What only the rooms themselves can judge of settings, and would keep the service from starting."""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

from twisted.internet.defer import maybeDeferred

from digipoort_msa.config import Problem
from digipoort_msa.config.realm import Realm
from digipoort_msa.config.settings import Settings
from digipoort_msa.interfaces import Facilities, Unavailable
from digipoort_msa.service.queues import make_notifications


def unusable(settings: Settings) -> Iterator[Problem]:
    """Every problem, warnings among them, of settings that :func:`digipoort_msa.config.load` has nothing
    against.

    Files are read, and a database with tables of somebody else's is asked for an account; nothing is written,
    kept open or started.
    """
    told = set()
    for index, realm in enumerate(settings.realm):
        key = "notification" if realm.notification is None else f"realm[{index}].notification"
        try:
            make_notifications(settings, realm)
        except ValueError as error:
            if key not in told:
                yield Problem(f"{key}.templates", str(error))
            told.add(key)
    for index, realm in enumerate(settings.realm):
        yield from _foreign_tables(f"realm[{index}]", realm)
        yield from _store_and_plugins(f"realm[{index}]", realm, settings)


def _foreign_tables(key: str, realm: Realm) -> Iterator[Problem]:
    """A query is known to be right only when its database has answered it, with no account as a rule.

    It is a warning: the database may be down for now, and then the realm's logins wait for it as well.
    """
    if realm.store != "sql" or realm.sql.account_query is None:
        return
    from digipoort_msa.accounts.stores import open_foreign

    sql = realm.sql
    try:
        accounts = open_foreign(
            realm=realm.name,
            url=sql.url or "",
            query=realm.sql.account_query,
            password_file=sql.password_file,
        )
    except (ValueError, OSError):
        return  # which the rules on settings tell
    try:
        accounts.find("digipoort-msa-check")
    except Unavailable as error:
        right = f"was tried, and the realm's logins would be told 454 now: {error}"
        yield Problem(f"{key}.sql.account-query", right, warning=True)
    finally:
        accounts.close()


def _store_and_plugins(key: str, realm: Realm, settings: Settings) -> Iterator[Problem]:
    """What opens without leaving a trace is opened: all stores but ``sql``, and other packages' policies."""
    plugins = [(number, policy) for number, policy in enumerate(realm.policy) if policy.rule == "plugin"]
    if realm.store == "sql" and not plugins:
        return  # which is the most frequent case, and need not wait for what comes below
    from twisted.internet import reactor

    from digipoort_msa.service.policies import RULES
    from digipoort_msa.service.stores import STORES, open_store
    from digipoort_msa.threads import Threads

    threads = Threads(reactor, "check", size=1, waiting=0)
    facilities = Facilities(reactor, threads, settings.server.state_directory)
    try:
        if realm.store != "sql":
            table = realm.store if realm.store in STORES else "plugin"
            judged = partial(_of_store, key, table, realm)
            yield from _opens(f"{key}.{table}", partial(open_store, realm, facilities), judged)
        for number, policy in plugins:
            where = f"{key}.policy[{number}].plugin.settings"
            yield from _opens(where, partial(RULES["plugin"], policy, realm, facilities))
    finally:
        threads.stop()


def _of_store(key: str, table: str, realm: Realm, store: Any) -> Iterator[Problem]:
    """What is listed, and cannot be offered; and what the store itself would have the operator know."""
    for warning in getattr(store, "warnings", ()):
        yield Problem(f"{key}.{table}", warning, warning=True)
    for number, mechanism in enumerate(realm.mechanisms):
        if mechanism not in store.mechanisms and mechanism != "EXTERNAL":
            right = f"is not offered: the store {realm.store} cannot verify it"
            yield Problem(f"{key}.mechanisms[{number}]", right, mechanism, warning=True)


def _opens(
    key: str, opening: Callable[[], Any], judged: Callable[[Any], Iterable[Problem]] = lambda _: ()
) -> Iterator[Problem]:
    try:
        opened = opening()
    except (ValueError, OSError) as error:
        yield Problem(key, str(error))
    else:
        yield from judged(opened)
        maybeDeferred(opened.stop).addErrback(lambda _: None)  # nothing was begun; nobody waits here
