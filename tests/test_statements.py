from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import text
from twisted.trial.unittest import SynchronousTestCase

from digipoort_msa.statements import Statement, account_query, scram_query, upgrade_query
from tests.requirements import proves

GOOD = "SELECT login AS name, 1 AS active, hash AS password_hash FROM users WHERE login = :name"


class StatementTests(SynchronousTestCase):
    def assert_fault(self, words, statement, kind=account_query):
        error = self.assertRaises(ValueError, kind, statement)
        self.assertIn(words, str(error))

    def test_good(self):
        for statement, bound in (
            (GOOD, {"name"}),
            (GOOD + " AND tenant=:realm", {"name", "realm"}),
            (f"\n  with x as ({GOOD}) select * from x", {"name"}),
            ("SELECT name FROM t WHERE n = CAST(:name AS text) AND k::text LIKE '%staff'", {"name"}),
            ("SELECT a.\"x\", `y` FROM t WHERE n=:name AND s <> 'it''s; -- {?}' AND a % 2 = 1", {"name"}),
            ("SELECT ':' || x FROM t WHERE n IN (:name,:name)", {"name"}),
        ):
            self.assertEqual(account_query(statement).bound, bound, statement)

    def test_words(self):
        words = account_query("SELECT a.Login AS \"name\", 'digest_ha1' AS x FROM t WHERE n=:name").words
        self.assertLess({"login", "name", "x"}, words)
        self.assertNotIn("digest_ha1", words)

    @proves("A7")
    def test_what_is_refused(self):
        for statement, words in (
            ("SELECT 1", "does not bind :name"),
            ("SELECT 1 WHERE a = ':name'", ":name stands within quotes"),
            ("SELECT 1 WHERE a = :name AND b = ':name'", "within quotes"),
            ('SELECT 1 WHERE a = :name AND b = "x:name"', "within quotes"),
            ("SELECT 1 WHERE a = :name AND b = `:name`", "within quotes"),
            ("SELECT 1 WHERE a = :name -- :name", "a comment (--)"),
            ("SELECT 1 /* :name */ WHERE a = :name", "a comment (/*)"),
            ("SELECT 1 WHERE a = :name # :realm", "a comment on MariaDB"),
            ("SELECT 1 WHERE a = :name; DELETE FROM t", "a semicolon"),
            ("SELECT 1 WHERE a = :name AND b = '\\' OR 1=1'", "backslash"),
            ("SELECT 1 WHERE a = :name AND b = 'x", "not closed"),
            ("SELECT 1 WHERE a = :name AND b = 'x''", "not closed"),
            ("SELECT 1 WHERE a = %(name)s AND b = :name", "%("),
            ("SELECT 1 WHERE a = %s AND b = :name", "%s"),
            ("SELECT 1 WHERE a = {name} AND b = :name", "a brace"),
            ("SELECT 1 WHERE a = ? AND b = :name", "a question mark"),
            ("SELECT 1 WHERE a = $1 AND b = :name", "a dollar sign"),
            ("SELECT $$ :name $$ WHERE a = :name", "a dollar sign"),
            ("SELECT 1 WHERE a = :name::text", "CAST(:name AS type)"),
            ("SELECT 1 WHERE a = :name AND b = :password", "binds :password; there is :name, :realm"),
            ("SELECT x[1:2] FROM t WHERE a = :name", "a colon in it"),
            ("SELECT x[1: 2] FROM t WHERE a = :name", "a colon in it"),
            ("SELECT @x := 1 FROM t WHERE a = :name", "a colon in it"),
            ("SELECT 1 WHERE a = :name:realm", "a colon in it"),
            ("DELETE FROM users WHERE a = :name", "does not begin with SELECT or WITH"),
            ("", "does not begin with"),
        ):
            self.assert_fault(words, statement)

    def test_the_others(self):
        upgrade = "UPDATE users SET hash = :new WHERE login = :name AND hash = :old"
        self.assertEqual(upgrade_query(upgrade).bound, {"name", "old", "new"})
        scram = "UPDATE users SET scram = :scram WHERE login = :name AND hash = :old AND t = :realm"
        self.assertEqual(scram_query(scram).bound, {"name", "old", "scram", "realm"})
        self.assert_fault("does not bind :old", upgrade.replace(" AND hash = :old", ""), upgrade_query)
        self.assert_fault("does not bind :name", upgrade.replace("login = :name AND ", ""), upgrade_query)
        self.assert_fault("does not begin with UPDATE", GOOD, upgrade_query)
        self.assert_fault("does not bind :scram", upgrade, scram_query)

    @settings(max_examples=300, deadline=None)
    @given(st.lists(st.sampled_from([*"ab :'\"`%\n1=_", ":name", ":x", "::", "''", "SELECT "]), max_size=14))
    def test_sqlalchemy_sees_the_same_parameters(self, parts):
        """Whatever is let through binds what we think it binds, and nothing within quotes."""
        written = "".join(parts)
        try:
            statement = Statement(written)
        except ValueError:
            return
        self.assertEqual(set(text(written).compile().params), statement.bound)
