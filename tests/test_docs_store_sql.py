"""The page of the sql store: its configuration in a whole MSA, beside a real PostgreSQL and MariaDB."""

import tomllib
from typing import Any

from sqlalchemy import text
from sqlalchemy.engine import URL

from digipoort_msa.accounts.administration import Administration
from digipoort_msa.accounts.engine import open_engine
from digipoort_msa.accounts.keyring import new_key
from digipoort_msa.accounts.passwords import PasswordHashing
from digipoort_msa.accounts.stores import open_accounts
from digipoort_msa.config.settings import Settings
from tests import mariadb, postgresql
from tests.docs_pages import PageTestCase, blocks
from tests.requirements import proves

USERS = (
    "CREATE TABLE users (login VARCHAR(100), tenant VARCHAR(20), blocked BOOLEAN, hash VARCHAR(200), "
    "email VARCHAR(200), paid_until DATE) CHARACTER SET utf8mb4"
)


class SqlPageTests(PageTestCase):
    page = "stores/sql"

    def setUp(self) -> None:
        super().setUp()
        self.folder.mkdir()
        self.own, self.portal = postgresql.running().fresh(), mariadb.running().fresh()
        (self.folder / "password").write_text("of the database\n")
        (self.folder / "key").write_text(new_key().hex())
        self.hashing = PasswordHashing(memory_kib=8, time_cost=1)
        self.portal_says(USERS)
        for login, blocked, paid_until in (
            ("klant", False, "2999-12-31"),
            ("weg", True, None),
            ("oud", False, "2001-01-01"),
        ):
            self.portal_says(
                "INSERT INTO users VALUES (:login, 'portaal', :blocked, :hash, :mail, :paid)",
                login=login,
                blocked=blocked,
                hash=PasswordHashing(memory_kib=16, time_cost=1).hash("geheim"),
                mail=f"{login}@klant.example",
                paid=paid_until,
            )

    def portal_says(self, statement: str, **values: Any) -> Any:
        engine = open_engine(self.portal)
        self.addCleanup(engine.dispose)
        with engine.begin() as connection:
            result = connection.execute(text(statement), values)
            return result.scalar() if result.returns_rows else None

    def begin(self) -> Settings:
        urls = [realm["sql"]["url"] for realm in tomllib.loads(blocks(self.page)[0])["realm"]]
        files: Any = {
            urls[0]: _shown(self.own),
            urls[1]: _shown(self.portal),
            "/etc/digipoort-msa/db-password": self.folder / "password",
            "/etc/digipoort-msa/accounts-key": self.folder / "key",
        }
        settings = self.page_settings(files=files)
        realm = settings.realm[0]
        accounts = open_accounts(
            realm=realm.name,
            url=realm.sql.url,
            state_directory=settings.server.state_directory,
            password_file=realm.sql.password_file,
            key_file=realm.sql.key_file,
        )
        self.addCleanup(accounts.close)
        names = [each.name for each in settings.realm]
        administration = Administration(
            accounts, self.hashing, digest=True, scram_iterations=4096, realms=names
        )
        administration.add("bedrijf", "geheim")
        self.start(settings)
        return settings

    async def logins(self, *names: str) -> list[str]:
        def script() -> list[str]:
            said = []
            for name in names:
                with self.client(self.ports()["implicit"], implicit=True) as client:
                    client.reply()
                    client.ask("EHLO client.example")
                    said.append(client.login(name, "geheim")[:9])
            return said

        answered: Any = await self.run_client(script)
        return list(answered)

    @proves("A2", "A7")
    async def test_the_example(self) -> None:
        self.begin()
        said = await self.logins(
            "bedrijf", "klant@portaal.example.nl", "weg@portaal.example.nl", "oud@portaal.example.nl", "klant"
        )
        self.assertEqual([reply[:3] for reply in said], ["235", "235", "535", "535", "535"])
        upgraded = self.portal_says("SELECT hash FROM users WHERE login = 'klant'")
        self.assertFalse(self.hashing.outdated(upgraded))
        self.assertFalse((self.folder / "state" / "accounts.key").exists())

    async def test_a_database_that_is_down(self) -> None:
        """The other realm goes on, and so does this one when its database is there again."""
        self.begin()
        names = ("bedrijf", "klant@portaal.example.nl")
        self.assertEqual([reply[:3] for reply in await self.logins(*names)], ["235", "235"])
        mariadb.running().kill()
        try:
            self.assertEqual(await self.logins(*names), ["235 2.7.0", "454 4.7.0"])
        finally:
            mariadb.running().start()
        self.assertEqual([reply[:3] for reply in await self.logins(*names)], ["235", "235"])


def _shown(url: URL) -> str:
    return url.render_as_string(hide_password=False)
