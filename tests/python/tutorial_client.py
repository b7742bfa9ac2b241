"""A caller as people write it after reading a tutorial: pika, a callback queue of its own, a body of
decimal text. It knows nothing of this project.

usage: tutorial_client.py URL QUEUE N [N ...]

Prints one answer a line. A reply that is no number ends it with a ValueError and status 1; ten
seconds without a reply end it with status 3.
"""

import sys
import uuid

import pika

url, queue, arguments = sys.argv[1], sys.argv[2], sys.argv[3:]
connection = pika.BlockingConnection(pika.URLParameters(url))
channel = connection.channel()
callback_queue = channel.queue_declare(queue="", exclusive=True).method.queue
replies = {}


def on_reply(_channel, _method, properties, body):
    replies[properties.correlation_id] = body


channel.basic_consume(callback_queue, on_reply, auto_ack=True)

for argument in arguments:
    call = str(uuid.uuid4())
    channel.basic_publish(
        exchange="",
        routing_key=queue,
        properties=pika.BasicProperties(reply_to=callback_queue, correlation_id=call),
        body=argument,
    )
    waited = 0
    while call not in replies:
        connection.process_data_events(time_limit=1)
        waited += 1
        if waited > 10:
            sys.exit(3)
    print(int(replies.pop(call)), flush=True)

connection.close()
