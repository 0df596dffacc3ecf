"""How nodes on one NATS hear of each other: by plain messages that nobody stores. What they say: `actors/peers.py`."""

from __future__ import annotations

from functools import partial
from typing import Final

import trio

from arc_es.actors.peers import Peers
from arc_es.nats_bridge import Bridge
from arc_es.nats_frames import Incoming
from arc_es.ports import JournalUnavailable

SUBJECT: Final = "arc-nodes"
"""Beside the subjects of the stream, which would store it."""
RETRY_SECONDS: Final = 1.0


async def gossip(bridge: Bridge, peers: Peers) -> None:
    """Carry what the nodes tell each other, for ever, over every connection there is."""
    peers.tell = lambda message: bridge.soon(partial(bridge.publish, SUBJECT, message))
    while True:
        await bridge.wait_available()
        lost = trio.Event()
        try:
            await bridge.call(partial(bridge.listen, partial(_heard, peers, lost), subject=SUBJECT))
        except JournalUnavailable:
            await trio.sleep(RETRY_SECONDS)
        else:
            peers.beat()
            await lost.wait()


def _heard(peers: Peers, lost: trio.Event, message: Incoming | None) -> None:
    if message is None:
        lost.set()
    else:
        peers.heard(message.data)
