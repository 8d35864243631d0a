"""An `async def` handler: waits for many things at once. The event loop is the same for all events of a worker."""

import asyncio


async def handle(event, context):
    records = [record for part in event["records"].values() for record in part]
    offsets = await asyncio.gather(*(look_up(record) for record in records))
    return {"offsets": offsets}


async def look_up(record):
    await asyncio.sleep(0.01)  # in place of a request to somewhere
    return record["offset"]
