"""What is in the files that hold secrets: keys, and a password."""

from base64 import b64decode


def encryption_keys(octets: bytes) -> tuple[bytes, ...]:
    """The keys in a file, one a line, each 64 hex digits or base64: the first seals, and all of them open.

    :raise ValueError: there is none, or one is neither, or not of 32 octets; the text has nothing of what is
        in the file.
    """
    if not octets.isascii():
        raise ValueError("it is not text")
    keys = tuple(map(_encryption_key, octets.split()))
    if not keys:
        raise ValueError("it is empty")
    return keys


def _encryption_key(text: bytes) -> bytes:
    key = bytes.fromhex(text.decode("ascii")) if len(text) == 64 else b64decode(text, validate=True)
    if len(key) != 32:
        raise ValueError(f"a key of {len(key)} octets")
    return key


def first_line(octets: bytes) -> str:
    """The password in a file: its first line, without the line's end.

    :raise ValueError: there is none; the text has nothing of what is in the file.
    """
    try:
        line = octets.partition(b"\n")[0].rstrip(b"\r").decode("utf-8")
    except UnicodeDecodeError:
        raise ValueError("it is not UTF-8") from None
    if not line:
        raise ValueError("it is empty")
    if "\0" in line:  # RFC 4616 2
        raise ValueError("it holds NUL")
    return line
