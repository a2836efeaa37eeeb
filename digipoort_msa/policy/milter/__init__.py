"""A milter is asked: the protocol between an MTA and a content filter that Sendmail made and Postfix speaks.

``packets`` is the wire, without I/O; ``told`` and ``content`` say what a milter is told of a transaction
and of a message; ``connection`` carries it, ``milter`` is one configured milter and its health, and
``judgement`` makes a policy of its answers.
"""
