"""Drives confluent-kafka (librdkafka)."""

import os
import time

from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from driver import Coded, load, save, serve

member = None
given = {}


def coded(error):
    return Coded(error.code(), error.str())


def config(q, **more):
    return {"bootstrap.servers": q["addr"], "log_level": 3, **{k.replace("_", "."): v for k, v in more.items()}}


def create(q):
    topic = NewTopic(q["topic"], q.get("partitions", -1), q.get("replication", -1), config=q.get("configs", {}))
    try:
        admin = AdminClient(config(q))
        admin.create_topics([topic])[q["topic"]].result()
    except KafkaException as e:
        raise coded(e.args[0]) from e


def describe(q):
    t = AdminClient(config(q, allow_auto_create_topics=False)).list_topics(q["topic"], timeout=10).topics[q["topic"]]
    if t.error is not None:
        raise coded(t.error)
    return {"partitions": len(t.partitions), "leaders": sum(p.leader >= 0 for p in t.partitions.values())}


def produce(q):
    sent = {}
    failed = []

    def delivered(i):
        def report(error, message):
            if error is not None:
                failed.append(error)
            else:
                sent[i] = message.offset()

        return report

    producer = Producer(config(q, acks=q["acks"], enable_idempotence=q["idempotent"], compression_type=q["codec"], linger_ms=20,
                               message_max_bytes=10_000_000, message_timeout_ms=60_000, topic_metadata_propagation_max_ms=1000))
    count = 0
    for key, value, headers, ts in load(q["file"]):
        producer.produce(q["topic"], value, key, q["partition"], on_delivery=delivered(count), timestamp=ts or 0, headers=headers)
        count += 1
    producer.flush(60)
    if failed:
        raise coded(failed[0])
    return {"offsets": [sent[i] for i in range(count)]}


def consumer(q, **more):
    return Consumer(config(q, enable_auto_commit=False, auto_offset_reset="earliest", **{"group_id": "none", **more}))


def checked(message):
    if message.error() is not None:
        raise coded(message.error())
    return message


def consume(q):
    got = []
    until = time.monotonic() + q["wait_ms"] / 1000
    c = consumer(q)
    c.assign([TopicPartition(q["topic"], q["partition"], q["offset"])])
    while len(got) < q["count"] and time.monotonic() < until:
        for m in map(checked, c.consume(500, 0.2)):
            got.append((m.key(), m.value(), m.headers(), m.timestamp()[1], m.offset()))
    c.close()
    return save(q["file"], got)


def by_time(q):
    c = consumer(q)
    found = c.offsets_for_times([TopicPartition(q["topic"], q["partition"], q["ts"])], timeout=10)[0]
    c.close()
    if found.error is not None:
        raise coded(found.error)
    return {"offset": found.offset}


def tail(q):
    """Counts how often a partition's end did not cover a record that was acknowledged just before."""
    told = []
    producer = Producer(config(q, acks=q["acks"], linger_ms=0))
    c = consumer(q)
    stale = 0
    for i in range(q["count"]):
        producer.produce(q["topic"], b"%d" % i, None, q["partition"], on_delivery=lambda error, message: told.append((error, message)))
        producer.flush(30)
        error, message = told.pop()
        if error is not None:
            raise coded(error)
        stale += c.get_watermark_offsets(TopicPartition(q["topic"], q["partition"]), timeout=10)[1] <= message.offset()
    c.close()
    return {"count": stale}


def join(q):
    global member
    member = consumer(q, group_id=q["group"], session_timeout_ms=q["session_ms"], heartbeat_interval_ms=500)
    member.subscribe([q["topic"]])


def poll(q):
    records = []
    for m in map(checked, member.consume(500, q["wait_ms"] / 1000)):
        records.append({"p": m.partition(), "o": m.offset(), "v": m.value().decode()})
        given[m.partition()] = m.offset() + 1
    return {"records": records}


def commit(q):
    offset = given[q["partition"]]
    done = member.commit(offsets=[TopicPartition(q["topic"], q["partition"], offset)], asynchronous=False)
    if done[0].error is not None:
        raise coded(done[0].error)
    return {"offset": offset}


serve({"create": create, "describe": describe, "produce": produce, "consume": consume, "time": by_time, "tail": tail,
       "join": join, "poll": poll, "commit": commit})
os._exit(0)  # a member must not leave its group politely
