"""Make the topic and the queues of the example, and send 20 orders to each of the two; the last has no price."""

import asyncio
import json
import os

import boto3
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

KAFKA = os.environ.get("KAFKA", "kafka:9092")
ORDERS = [{"id": number, "quantity": 2, "price": 5} for number in range(19)] + [{"id": 19, "quantity": 2}]


def fill_queue():
    sqs = boto3.client("sqs")
    sqs.create_queue(QueueName="orders-failures")
    url = sqs.create_queue(QueueName="orders")["QueueUrl"]
    for order in ORDERS:
        sqs.send_message(QueueUrl=url, MessageBody=json.dumps(order))


async def fill_topic():
    admin = AIOKafkaAdminClient(bootstrap_servers=KAFKA)
    await admin.start()
    if "orders" not in await admin.list_topics():
        await admin.create_topics([NewTopic("orders", 4, 1)])
    await admin.close()
    async with AIOKafkaProducer(bootstrap_servers=KAFKA) as producer:
        for order in ORDERS:
            await producer.send_and_wait("orders", json.dumps(order).encode(), key=str(order["id"]).encode())


fill_queue()
asyncio.run(fill_topic())
print(f"{len(ORDERS)} orders are in the topic and {len(ORDERS)} in the queue")
