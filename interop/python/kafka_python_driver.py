"""Drives kafka-python."""

import os
import time

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, OffsetAndMetadata, TopicPartition
from kafka.admin import NewTopic
from kafka.errors import UnknownTopicOrPartitionError, for_code
from kafka.net.sasl.oauth import AbstractTokenProvider

from driver import Coded, load, save, serve, token

member = None
given = {}
topic = None  # that the member reads
transactional = None


class Tokens(AbstractTokenProvider):
    """Gives the library the token of a login."""

    def __init__(self, login):
        super().__init__()
        self.login = login

    def token(self):
        return token(self.login)


def reach(q):
    """How the library reaches the broker, and who it is."""
    c = {"bootstrap_servers": q["addr"]}
    login = q.get("login")
    if login is None:
        return c
    c.update(security_protocol="SSL", ssl_cafile=login["ca"])
    if "certificate" in login:
        c.update(ssl_certfile=login["certificate"], ssl_keyfile=login["certificate"])
    mechanism = login.get("mechanism")
    if mechanism is not None:
        c.update(security_protocol="SASL_SSL", sasl_mechanism=mechanism)
    if mechanism == "OAUTHBEARER":
        c["sasl_oauth_token_provider"] = Tokens(login)
    elif mechanism is not None:
        c.update(sasl_plain_username=login["user"], sasl_plain_password=login["password"])
    return c


def create(q):
    admin = KafkaAdminClient(**reach(q))
    try:
        admin.create_topics([NewTopic(q["topic"], q.get("partitions", -1), q.get("replication", -1), topic_configs=q.get("configs", {}))])
    finally:
        admin.close()


def describe(q):
    admin = KafkaAdminClient(**reach(q), bootstrap_timeout_ms=q.get("wait_ms", 30_000))
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
    producer = KafkaProducer(**reach(q), acks=acks, enable_idempotence=q["idempotent"], compression_type=codec,
                             linger_ms=20, max_block_ms=5_000, max_request_size=10_000_000, allow_auto_create_topics=False)
    try:
        sent = [producer.send(q["topic"], value, key, headers, q["partition"], ts) for key, value, headers, ts in load(q["file"])]
        return {"offsets": [f.get(60).offset for f in sent]}
    finally:
        producer.close(10)


def flow(q):
    """Sends records one after the other for a while, by one client."""
    sent = []
    producer = KafkaProducer(**reach(q), acks="all", allow_auto_create_topics=False)
    try:
        until = None
        while until is None or time.monotonic() < until:
            sent.append(producer.send(q["topic"], b"%d" % len(sent), partition=q["partition"]))
            if until is None:  # the time begins when it is connected
                sent[0].get(30)
                until = time.monotonic() + q["wait_ms"] / 1000
            time.sleep(0.002)
        return {"count": len([f.get(30) for f in sent])}
    finally:
        producer.close(10)


def consumer(q, **more):
    return KafkaConsumer(**reach(q), enable_auto_commit=False, auto_offset_reset="earliest",
                         allow_auto_create_topics=False, max_partition_fetch_bytes=4 << 20, **more)


def isolation(q):
    return "read_committed" if q["committed"] else "read_uncommitted"


def consume(q):
    got = []
    tp = TopicPartition(q["topic"], q["partition"])
    until = time.monotonic() + q["wait_ms"] / 1000
    c = consumer(q, isolation_level=isolation(q))
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
    producer = KafkaProducer(**reach(q), acks=int(q["acks"]), enable_idempotence=False, linger_ms=0,
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
    global member, topic
    topic = q["topic"]
    member = consumer(q, group_id=q["group"], session_timeout_ms=q["session_ms"], heartbeat_interval_ms=500, isolation_level=isolation(q))
    member.subscribe([topic])


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


def txn_open(q):
    global transactional
    if transactional is not None:
        transactional.close(0)
    transactional = KafkaProducer(**reach(q), transactional_id=q["txn"], transaction_timeout_ms=q["txn_ms"])
    transactional.init_transactions()


def txn_begin(_):
    transactional.begin_transaction()


def txn_send(q):
    sent = [transactional.send(q["topic"], v.encode(), partition=q["partition"]) for v in q["values"]]
    transactional.flush(60)
    for f in sent:
        f.get(60)


def txn_offsets(_):
    offsets = {TopicPartition(topic, p): OffsetAndMetadata(offset, "", -1) for p, offset in given.items()}
    transactional.send_offsets_to_transaction(offsets, member.group_metadata())


def txn_commit(_):
    transactional.commit_transaction()


def txn_abort(_):
    transactional.abort_transaction()


serve({"create": create, "describe": describe, "produce": produce, "consume": consume, "time": by_time, "tail": tail, "flow": flow,
       "join": join, "poll": poll, "commit": commit, "txn_open": txn_open, "txn_begin": txn_begin, "txn_send": txn_send,
       "txn_offsets": txn_offsets, "txn_commit": txn_commit, "txn_abort": txn_abort})
os._exit(0)  # a member must not leave its group politely
