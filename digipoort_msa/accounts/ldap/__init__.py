"""The ``ldap`` store: accounts in a directory, found by a search and proven by a bind.

LDAP's messages are made and read by libldap, through python-ldap; connections, TLS and time are the
reactor's.  libldap could do those too, but not within bounds: where a server accepts a connection and then
says nothing during the TLS handshake, or ends in the middle of a message, libldap 2.5 waits for ever, in
whatever thread.  So each connection has a libldap of its own that sits behind a socket pair and is fed what
comes (:mod:`.codec`); no call blocks, and nothing needs a thread.

:mod:`.connection`
    One connection: requests with a deadline, TLS that is proven before anything is said.
:mod:`.directory`
    The servers, in their order, and the connections to them that are kept.
:mod:`.entry`
    What an entry says of an account.
:mod:`.store`
    :class:`~digipoort_msa.interfaces.IPasswordVerifier` of it.
"""
