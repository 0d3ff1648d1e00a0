"""Puts away what others left on the target: sessions in, orphans out."""

from __future__ import annotations

from collections.abc import Iterable

from loadgen.errors import TargetError
from loadgen.load.ledger import CLOSED, Ledger
from loadgen.opentalking import OpenTalking

TIMEOUT_S = 5.0


async def put_away(url: str, ledger: Ledger, workers: Iterable[str], why: str) -> int:
    """Delete what these workers left open; return how many sessions were deleted.

    What cannot be deleted becomes an orphan of the ledger, with `why` it was left.
    """
    deleted = 0
    async with OpenTalking(url) as client:
        for worker in workers:
            for visit, session in ledger.left_by(worker):
                orphan = None
                if session is None:
                    orphan = f"{why} while it created a session, whose id is not known"
                else:
                    try:
                        deleted += await client.delete_again(session, timeout=TIMEOUT_S)
                    except TargetError as error:
                        orphan = f"{why}, and then: {error}"
                ledger.note(worker, visit, CLOSED, orphan=orphan)
    return deleted
