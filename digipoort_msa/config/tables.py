"""What every table of the settings is made of: the base model, and the types of single values."""

import os
import re
from pathlib import Path
from typing import Annotated
from unicodedata import normalize

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, Strict, StringConstraints


def _kebab_case(name: str) -> str:
    return name.replace("_", "-")


class Table(BaseModel):
    """A table of the file; an unknown key is an error."""

    model_config = ConfigDict(
        alias_generator=_kebab_case,
        allow_inf_nan=False,
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,  # a value may be a secret; problems show values on their own terms
    )


Octets = Annotated[int, Strict(), Field(ge=1, le=2**40)]
Count = Annotated[int, Strict(), Field(ge=1, le=10**6)]
Seconds = Annotated[float, Strict(), Field(ge=0.001, le=10**9)]
Wait = Annotated[float, Strict(), Field(ge=0, le=60)]
Flag = Annotated[bool, Strict()]
Text = Annotated[str, StringConstraints(min_length=1)]
#: As accounts are named once SASLprep is done (RFC 4013 2.2): another form of a letter would name nobody.
AccountName = Annotated[Text, AfterValidator(lambda name: normalize("NFKC", name))]


def _absolute(path: Path) -> Path:
    if not path.is_absolute() or "\0" in str(path):
        raise ValueError("an absolute path, from / on")
    return path


AbsolutePath = Annotated[Path, AfterValidator(_absolute)]


def _credential(value: object) -> object:
    """``credential:NAME`` is the file in which systemd hands over that credential (``LoadCredential=``); a
    command that is run beside the service finds it where the service's unit has it."""
    if isinstance(value, str) and re.fullmatch(r"credential:[A-Za-z0-9_][A-Za-z0-9_.-]*", value):
        folder = os.environ.get("CREDENTIALS_DIRECTORY", "/run/credentials/digipoort-msa.service")
        return Path(folder) / value.removeprefix("credential:")
    return value


SecretFile = Annotated[AbsolutePath, BeforeValidator(_credential)]

LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
HostName = Annotated[str, StringConstraints(max_length=255, pattern=rf"^{LABEL}(?:\.{LABEL})*$")]
AddressPattern = Annotated[str, StringConstraints(pattern=r"^[^\s@]+@[^\s@]+$")]


def host_and_port(text: str) -> tuple[str, int]:
    """Split ``host:port``; an IPv6 address stands in brackets.

    :raise ValueError: this is not a host and a port.
    """
    match = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]+)):([0-9]{1,5})", text, re.ASCII)
    if match is None or not 0 < int(match[3]) < 65536:
        raise ValueError('"host:port", such as "core.example.nl:25" or "[2001:db8::1]:25"')
    return match[1] or match[2], int(match[3])
