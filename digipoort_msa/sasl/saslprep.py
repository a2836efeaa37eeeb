"""SASLprep (RFC 4013): user names and passwords that look the same are the same.

A profile of stringprep (RFC 3454), which is defined on Unicode 3.2 and stays there: later characters
count as unassigned.  They are refused in what is stored and in what is presented alike; a name that
cannot be stored cannot be found either.
"""

import stringprep
from unicodedata import ucd_3_2_0

# RFC 4013 2.3 and 2.5, in the words an operator sees.
_PROHIBITED = (
    (stringprep.in_table_c12, "a non-ASCII space"),
    (stringprep.in_table_c21_c22, "a control character"),
    (stringprep.in_table_c3, "a private use character"),
    (stringprep.in_table_c4, "a non-character code point"),
    (stringprep.in_table_c5, "a surrogate code point"),
    (stringprep.in_table_c6, "a character inappropriate for plain text"),
    (stringprep.in_table_c7, "a character inappropriate for canonical representation"),
    (stringprep.in_table_c8, "a character that changes the display of others"),
    (stringprep.in_table_c9, "a tagging character"),
    (stringprep.in_table_a1, "a character that Unicode 3.2 does not have"),
)


def saslprep(text: str) -> str:
    """Prepare a user name or a password.

    :return: the prepared text, which may be empty where ``text`` was not.
    :raise ValueError: it holds what RFC 4013 prohibits.  The message names the kind, never the text.
    """
    if text.isascii() and text.isprintable():
        return text  # by far the most, and left as they are by every step below

    mapped = "".join(
        " " if stringprep.in_table_c12(character) else character
        for character in text
        if not stringprep.in_table_b1(character)
    )
    prepared = ucd_3_2_0.normalize("NFKC", mapped)
    for prohibited, kind in _PROHIBITED:
        if any(map(prohibited, prepared)):
            raise ValueError(f"it holds {kind} (RFC 4013); leave it out")
    _check_direction(prepared)
    return prepared


def _check_direction(prepared: str) -> None:
    """RFC 3454 6: right-to-left text stands alone, from the first character to the last."""
    if not any(map(stringprep.in_table_d1, prepared)):
        return
    if any(map(stringprep.in_table_d2, prepared)):
        raise ValueError("it mixes right-to-left and left-to-right letters (RFC 3454 6); use one direction")
    if not (stringprep.in_table_d1(prepared[0]) and stringprep.in_table_d1(prepared[-1])):
        raise ValueError("right-to-left text has to begin and end with a right-to-left letter (RFC 3454 6)")
