"""What a profile finds against a message: the rule's name, and where."""

#: Rules that are about size: 552 5.3.4 to the client, where the others are 550 5.7.1.
OF_SIZE = frozenset({"header-size", "attachment-size", "attachment-total"})


class Violation(Exception):
    """The first thing in a message that a profile does not allow; what follows it is not looked at."""

    def __init__(self, rule: str, where: str, cause: str) -> None:
        """
        :param rule: its name, one of those in ``docs/policies/profile.rst``.
        :param where: for the reply: in words and numbers of ours, or a field's name as the operator wrote it.
        :param cause: for the log.
        """
        super().__init__(f"{rule} ({where}): {cause}")
        self.rule = rule
        self.where = where
        self.cause = cause


class Malformed(Exception):
    """A field or a body that two programs may read in two ways: no profile takes it (``well-formed``)."""
