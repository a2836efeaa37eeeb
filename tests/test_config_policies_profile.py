"""``[realm.policy.profile]``: what is no profile is told with the other problems of a file."""

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from digipoort_msa.config.loading import settings_from
from digipoort_msa.config.policies.profile import ProfileTable
from digipoort_msa.config.problems import ConfigError
from digipoort_msa.policy.profile import Attachments, Bounds, Profile
from tests.configurations import document
from tests.requirements import proves


def problems(**profile: Any) -> list[str]:
    realm = {"name": "a", "policy": [{"rule": "profile", "profile": profile}]}
    try:
        settings_from(document(realm=[realm]), files=False)
    except ConfigError as error:
        return [str(problem).removeprefix("realm[0].policy[0].profile.") for problem in error.problems]
    return []


class TableTests(SynchronousTestCase):
    @proves("M10")
    def test_patterns_that_do_not_compile(self) -> None:
        for pattern, why in (("(", "missing )"), (r"(a)\1", "invalid escape"), ("(?=a)", "perl")):
            for table in (
                {"header-patterns": {"Subject": pattern}},
                {"decoded-header-patterns": {"Subject": pattern}},
                {"attachments": {"names": pattern}},
            ):
                (line,) = problems(**table)
                self.assertIn("should be a regular expression as RE2 has them", line)
                self.assertIn(why, line)

    @proves("M10")
    def test_what_can_not_be_meant(self) -> None:
        for table in (
            {"required-headers": ["Subject:"]},
            {"forbidden-headers": ["a b"]},
            {"header-patterns": {"Subject": "a" * 5000}},
            {"maximum-header-size": 2**20 + 1},
            {"maximum-parts": 1001},
            {"maximum-depth": 21},
            {"content-types": ["multipart"]},
            {"multipart-types": ["*/mixed"]},
            {"text-types": ["text/pl*"]},
            {"charsets": ["utf 8"]},
            {"encodings": ["x-uuencode"]},
            {"encodings": []},
            {"attachments": {"types": ["application/"]}},
            {"attachments": {"minimum": -1}},
        ):
            self.assertEqual(len(problems(**table)), 1, table)

    def test_what_is_right(self) -> None:
        right: dict[str, Any] = {
            "header-patterns": {"Subject": r"^\[V=[^\]]*\]$"},
            "content-types": ["multipart/*", "*/*", "application/vnd.x+xml"],
            "charsets": ["ISO-8859-1"],
            "attachments": {"types": ["image/*"], "names": r"(?i)\.xml$", "maximum": 0},
        }
        self.assertEqual(problems(**right), [])

    def test_defaults_are_the_profiles_own(self) -> None:
        table, profile = ProfileTable(), Profile(name="x")
        self.assertEqual(table.single_headers, profile.single_headers)
        self.assertEqual(set(table.text_types), profile.text_types.patterns)
        self.assertEqual(set(table.encodings), profile.encodings)
        found = (
            table.maximum_header_size,
            table.maximum_fields,
            table.maximum_depth,
            table.maximum_parts,
            table.maximum_outside,
        )
        bounds = Bounds()
        self.assertEqual(
            found, (bounds.header_size, bounds.header_fields, bounds.depth, bounds.parts, bounds.outside)
        )
        self.assertEqual(table.attachments.maximum, Attachments().maximum)
