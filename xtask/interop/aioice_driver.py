"""The TURN client of aioice: a client with an echoing peer, or two clients with each other."""

import argparse
import asyncio
import json
import struct

from aioice import turn

WARM_UP = 1.5
GREETING_INTERVAL = 0.05
GRACE = 0.8
GREETING = b"a greeting, which does not count"


def payload(stream, number):
    size = 12 + number * 37 % 1100
    return struct.pack(">IQ", stream, number) + bytes((number * 7 + at) % 256 for at in range(12, size))


class End(asyncio.DatagramProtocol):
    def __init__(self, hears):
        self.stream = hears
        self.seen = set()
        self.greetings = self.duplicated = self.altered = 0

    def datagram_received(self, data, addr):
        if data == GREETING:
            self.greetings += 1
            return
        number = struct.unpack(">Q", data[4:12])[0] if len(data) >= 12 else None
        if number is None or data != payload(self.stream, number):
            self.altered += 1
        elif number in self.seen:
            self.duplicated += 1
        else:
            self.seen.add(number)


async def allocate(plan, hears):
    host, port = plan.server.rsplit(":", 1)
    return await turn.create_turn_endpoint(
        lambda: End(hears),
        server_addr=(host, int(port)),
        username=plan.user,
        password=plan.password,
        transport="udp",
    )


async def speak(plan, transport, to, stream):
    loop = asyncio.get_running_loop()
    greetings = 0
    warm = loop.time() + WARM_UP
    while loop.time() < warm:
        transport.sendto(GREETING, to)
        greetings += 1
        await asyncio.sleep(GREETING_INTERVAL)
    start = loop.time()
    for number in range(plan.rate * plan.seconds):
        transport.sendto(payload(stream, number), to)
        await asyncio.sleep(max(0, start + (number + 1) / plan.rate - loop.time()))
    return plan.rate * plan.seconds, greetings


async def main():
    parser = argparse.ArgumentParser()
    for name in ["server", "local", "user", "password", "realm"]:
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--peer")
    parser.add_argument("--rate", type=int, required=True)
    parser.add_argument("--seconds", type=int, required=True)
    plan = parser.parse_args()
    if plan.peer:
        host, port = plan.peer.rsplit(":", 1)
        transports, ends = zip(await allocate(plan, 1))
        targets = [(host, int(port))]
    else:
        transports, ends = zip(await allocate(plan, 2), await allocate(plan, 1))
        targets = [transport.get_extra_info("sockname") for transport in reversed(transports)]
    speakers = [
        speak(plan, transport, target, stream)
        for stream, (transport, target) in enumerate(zip(transports, targets), start=1)
    ]
    spoken = await asyncio.gather(*speakers)
    await asyncio.sleep(GRACE)
    sent = sum(sent for sent, _ in spoken)
    received = sum(len(end.seen) for end in ends)
    relays = sent + sum(greetings for _, greetings in spoken)
    if plan.peer:
        relays += received + sum(end.greetings for end in ends)
    print(
        json.dumps(
            {
                "sent": sent,
                "received": received,
                "duplicated": sum(end.duplicated for end in ends),
                "altered": sum(end.altered for end in ends),
                "relays": relays,
            }
        )
    )
    for transport in transports:
        transport.close()
    await asyncio.sleep(0.2)


asyncio.run(main())
