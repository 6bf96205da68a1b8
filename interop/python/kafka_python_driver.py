"""Drives kafka-python."""

import os
import time

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, OffsetAndMetadata, TopicPartition
from kafka.admin import NewTopic
from kafka.errors import UnknownTopicOrPartitionError, for_code

from driver import Coded, load, save, serve

member = None
given = {}


def create(q):
    admin = KafkaAdminClient(bootstrap_servers=q["addr"])
    try:
        admin.create_topics([NewTopic(q["topic"], q.get("partitions", -1), q.get("replication", -1), topic_configs=q.get("configs", {}))])
    finally:
        admin.close()


def describe(q):
    admin = KafkaAdminClient(bootstrap_servers=q["addr"])
    try:
        t = admin.describe_topics([q["topic"]])[0]
    finally:
        admin.close()
    if t.get("error_code"):
        raise Coded(t["error_code"], for_code(t["error_code"]).__name__)
    return {"partitions": len(t["partitions"]), "leaders": sum(p["leader_id"] >= 0 for p in t["partitions"])}


def produce(q):
    acks = q["acks"] if q["acks"] == "all" else int(q["acks"])
    codec = None if q["codec"] == "none" else q["codec"]
    producer = KafkaProducer(bootstrap_servers=q["addr"], acks=acks, enable_idempotence=q["idempotent"], compression_type=codec,
                             linger_ms=20, max_block_ms=5_000, max_request_size=10_000_000, allow_auto_create_topics=False)
    try:
        sent = [producer.send(q["topic"], value, key, headers, q["partition"], ts) for key, value, headers, ts in load(q["file"])]
        return {"offsets": [f.get(60).offset for f in sent]}
    finally:
        producer.close(10)


def consumer(q, **more):
    return KafkaConsumer(bootstrap_servers=q["addr"], enable_auto_commit=False, auto_offset_reset="earliest",
                         allow_auto_create_topics=False, max_partition_fetch_bytes=4 << 20, **more)


def consume(q):
    got = []
    tp = TopicPartition(q["topic"], q["partition"])
    until = time.monotonic() + q["wait_ms"] / 1000
    c = consumer(q)
    c.assign([tp])
    c.seek(tp, q["offset"])
    while len(got) < q["count"] and time.monotonic() < until:
        for m in c.poll(200).get(tp, []):
            got.append((m.key, m.value, m.headers, m.timestamp, m.offset))
    c.close()
    return save(q["file"], got)


def by_time(q):
    tp = TopicPartition(q["topic"], q["partition"])
    c = consumer(q)
    found = c.offsets_for_times({tp: q["ts"]})[tp]
    c.close()
    return {"offset": -1 if found is None else found.offset}


def tail(q):
    """Counts how often a partition's end did not cover a record that was acknowledged just before."""
    tp = TopicPartition(q["topic"], q["partition"])
    producer = KafkaProducer(bootstrap_servers=q["addr"], acks=int(q["acks"]), enable_idempotence=False, linger_ms=0,
                             allow_auto_create_topics=False)
    c = consumer(q)
    stale = 0
    try:
        for i in range(q["count"]):
            stored = producer.send(q["topic"], b"%d" % i, partition=q["partition"]).get(30).offset
            stale += c.end_offsets([tp])[tp] <= stored
    finally:
        producer.close(10)
        c.close()
    return {"count": stale}


def join(q):
    global member
    member = consumer(q, group_id=q["group"], session_timeout_ms=q["session_ms"], heartbeat_interval_ms=500)
    member.subscribe([q["topic"]])


def poll(q):
    records = []
    for batch in member.poll(q["wait_ms"]).values():
        for m in batch:
            records.append({"p": m.partition, "o": m.offset, "v": m.value.decode()})
            given[m.partition] = m.offset + 1
    return {"records": records}


def commit(q):
    offset = given[q["partition"]]
    member.commit({TopicPartition(q["topic"], q["partition"]): OffsetAndMetadata(offset, "", -1)})
    return {"offset": offset}


serve({"create": create, "describe": describe, "produce": produce, "consume": consume, "time": by_time, "tail": tail,
       "join": join, "poll": poll, "commit": commit})
os._exit(0)  # a member must not leave its group politely
