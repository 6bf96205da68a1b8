"""Bills orders exactly once: it reads the topic orders, and writes an invoice for each order into the topic invoices.

The invoices and the group's offsets are committed by one transaction. It takes the addresses of brokers and a transactional id.
"""

import sys

from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition


def main(brokers, transactional_id):
    consumer = Consumer({
        "bootstrap.servers": brokers,
        "group.id": "billing",
        "session.timeout.ms": 6000,  # after which others take the partitions of a program that was killed
        "enable.auto.commit": False,
        "auto.offset.reset": "earliest",
        "isolation.level": "read_committed",
    })
    producer = Producer({
        "bootstrap.servers": brokers,
        "transactional.id": transactional_id,  # another one for each program that runs
        "transaction.timeout.ms": 10000,
    })
    producer.init_transactions()  # fences a producer of the same transactional id, and aborts what it has left open
    consumer.subscribe(["orders"])
    while True:
        orders = [m for m in consumer.consume(100, timeout=1.0) if m.error() is None]
        if not orders:
            continue
        try:
            producer.begin_transaction()
            for order in orders:
                producer.produce("invoices", key=order.key(), value=b"invoice for " + order.value())
            producer.send_offsets_to_transaction(ends(orders), consumer.consumer_group_metadata())
            producer.commit_transaction()
        except KafkaException as e:
            if not e.args[0].txn_requires_abort():
                raise  # whoever watches over the program starts it again
            producer.abort_transaction()
            go_back(consumer, orders)  # else the orders of the aborted transaction would be left out


def ends(records):
    """The offsets at which the group goes on after these records."""
    after = {}
    for r in records:
        after[r.topic(), r.partition()] = r.offset() + 1
    return [TopicPartition(topic, partition, offset) for (topic, partition), offset in after.items()]


def go_back(consumer, records):
    """Has the records of an aborted transaction read again, where the partitions are still this member's."""
    mine = {(p.topic, p.partition) for p in consumer.assignment()}
    first = {}
    for r in records:
        first.setdefault((r.topic(), r.partition()), r.offset())
    for (topic, partition), offset in first.items():
        if (topic, partition) in mine:
            consumer.seek(TopicPartition(topic, partition, offset))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
