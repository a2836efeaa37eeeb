"""One unambiguous octet string for several texts: each is preceded by its length.

Keys that are made by joining (``realm + user``) let ``("a", "bc")`` and ``("ab", "c")`` meet, which is how
one user's cached login became another's (CVE-2025-30189).  With lengths in front no two lists can meet.
"""


def framed(*parts: str) -> bytes:
    """Join ``parts`` so that different lists never give the same octets."""
    octets = [part.encode() for part in parts]
    return b"".join([b"%d:%b" % (len(part), part) for part in octets])
