"""A content on its way into DATA: dots doubled, paced by the hop, ended only when whole (RFC 5321 4.5.2).

A content that is not canonical is never repaired, and one that breaks off never ended: the caller drops the
connection, and so nothing is delivered.
"""

from twisted.internet.defer import Deferred

from digipoort_msa.delivery.client import ClientConnection
from digipoort_msa.interfaces import IContentReader
from digipoort_msa.smtp.dot_stuffing import DotStuffing


class ContentStream:
    """One content; DATA was answered with 354."""

    def __init__(self, connection: ClientConnection, replies: int = 1) -> None:
        """:param replies: how many the hop has for the end of data; LMTP gives one for each recipient."""
        self._connection = connection
        self._stuffing = DotStuffing()
        connection.begin_content(replies)

    async def write(self, octets: bytes) -> None:
        """Send a segment, cut anywhere; ends when there is room for the next.

        :raise HopFailure: the connection failed; the hop's early reply among the causes.
        :raise NotCanonical: nothing more can be sent; the caller drops the connection.
        """
        self._connection.write_content(self._stuffing.stuff(octets))
        await self._connection.room()

    def end(self, octets: bytes = b"") -> None:
        """Send the last segment and the end of data; the replies are then awaited.

        :raise HopFailure, NotCanonical: as :meth:`write`.
        """
        stuffed = self._stuffing.stuff(octets)
        self._connection.end_content(stuffed + self._stuffing.end())
        self.close()

    def close(self) -> None:
        """There is nothing more to come, be it whole or not."""
        self._connection.leave_content()


async def send_content(
    connection: ClientConnection, reader: IContentReader, size: int, replies: int = 1
) -> None:
    """Stream a whole content, its end of data too.

    A segment is read only when the transport has room, so that one segment is all that is held.

    :param size: octets in ``reader``.  A reading that ends sooner or goes on longer is never finished.
    :param replies: as for :class:`ContentStream`.
    :raise HopFailure, NotCanonical: as :meth:`ContentStream.write`.
    :raise Exception: what the reader raised; nothing more can be sent, the caller drops the connection.
        :class:`EOFError` where ``size`` is wrong.
    """
    stream = ContentStream(connection, replies)
    sent = 0
    segment = b""
    try:
        while sent < size:
            reading: Deferred[bytes] = reader.read()
            segment = await connection.wait(reading, connection.timeouts.block)
            sent += len(segment)
            if not segment or sent > size:
                raise EOFError(f"a content of {size} octets read as {sent}{'' if segment else ' only'}")
            if sent < size:
                await stream.write(segment)
        stream.end(segment)
    finally:
        stream.close()
