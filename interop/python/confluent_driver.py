"""Drives confluent-kafka (librdkafka)."""

import os
import time

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from driver import Coded, load, save, serve, token

member = None
given = {}
topic = None  # that the member reads
transactional = None
told = []  # errors that the library told beside the requests that failed by them


def coded(error):
    return Coded(error.code(), error.str())


def config(q, **more):
    return {"bootstrap.servers": q["addr"], "log_level": 3, "error_cb": told.append, **reach(q.get("login")),
            **{k if k.endswith("_cb") else k.replace("_", "."): v for k, v in more.items()}}


def reach(login):
    """How the library reaches a listener with TLS, and who it is."""
    if login is None:
        return {}
    c = {"security.protocol": "ssl", "ssl.ca.location": login["ca"], "broker.address.family": "v4"}
    if "certificate" in login:
        c.update({"ssl.certificate.location": login["certificate"], "ssl.key.location": login["certificate"]})
    mechanism = login.get("mechanism")
    if mechanism is not None:
        c.update({"security.protocol": "sasl_ssl", "sasl.mechanism": mechanism})
    if mechanism == "OAUTHBEARER":
        c["oauth_cb"] = lambda _: (token(login), time.time() + 600)
    elif mechanism is not None:
        c.update({"sasl.username": login["user"], "sasl.password": login["password"]})
    return c


def refusal(*codes):
    """The newest error of a connection, None if there is none: a request itself fails by its time-out alone."""
    return next((e for e in reversed(told) if e.code() in codes), None)


def create(q):
    topic = NewTopic(q["topic"], q.get("partitions", -1), q.get("replication", -1), config=q.get("configs", {}))
    try:
        admin = AdminClient(config(q))
        admin.create_topics([topic])[q["topic"]].result()
    except KafkaException as e:
        raise coded(e.args[0]) from e


def describe(q):
    told.clear()
    admin = AdminClient(config(q, allow_auto_create_topics=False))
    until = time.monotonic() + q.get("wait_ms", 10_000) / 1000
    while True:
        try:
            t = admin.list_topics(q["topic"], timeout=1).topics[q["topic"]]
            break
        except KafkaException as e:
            admin.poll(0)
            why = refusal(KafkaError._AUTHENTICATION, KafkaError._SSL)
            if why is not None or time.monotonic() > until:
                raise coded(why or refusal(KafkaError._TRANSPORT) or e.args[0]) from e
    if t.error is not None:
        raise coded(t.error)
    return {"partitions": len(t.partitions), "leaders": sum(p.leader >= 0 for p in t.partitions.values())}


def produce(q):
    sent = {}
    failed = []
    throttled = []

    def delivered(i):
        def report(error, message):
            if error is not None:
                failed.append(error)
            else:
                sent[i] = message.offset()

        return report

    producer = Producer(config(q, acks=q["acks"], enable_idempotence=q["idempotent"], compression_type=q["codec"], linger_ms=20,
                               message_max_bytes=10_000_000, message_timeout_ms=60_000, topic_metadata_propagation_max_ms=1000,
                               throttle_cb=throttled.append))
    count = 0
    for key, value, headers, ts in load(q["file"]):
        producer.produce(q["topic"], value, key, q["partition"], on_delivery=delivered(count), timestamp=ts or 0, headers=headers)
        count += 1
    producer.flush(60)
    if failed:
        raise coded(failed[0])
    return {"offsets": [sent[i] for i in range(count)], "throttle_ms": max([int(t.throttle_time * 1000) for t in throttled], default=0)}


def flow(q):
    """Sends records one after the other for a while, by one client, which may not be told of any error."""
    told.clear()
    sent = []
    producer = Producer(config(q, linger_ms=0, acks="all", enable_idempotence=True))
    until = None
    count = 0
    while until is None or time.monotonic() < until:
        producer.produce(q["topic"], b"%d" % count, None, q["partition"], on_delivery=lambda error, _: sent.append(error))
        count += 1
        if until is None:  # the time begins when it is connected
            producer.flush(30)
            until = time.monotonic() + q["wait_ms"] / 1000
        producer.poll(0)
        time.sleep(0.002)
    producer.flush(30)
    for error in [e for e in sent if e is not None] + told:
        raise coded(error)
    return {"count": len(sent)}


def consumer(q, **more):
    return Consumer(config(q, enable_auto_commit=False, auto_offset_reset="earliest", **{"group_id": "none", **more}))


def isolation(q):
    return "read_committed" if q["committed"] else "read_uncommitted"


def checked(message):
    if message.error() is not None:
        raise coded(message.error())
    return message


def consume(q):
    got = []
    until = time.monotonic() + q["wait_ms"] / 1000
    c = consumer(q, isolation_level=isolation(q))
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
    global member, topic
    topic = q["topic"]
    member = consumer(q, group_id=q["group"], session_timeout_ms=q["session_ms"], heartbeat_interval_ms=500, isolation_level=isolation(q))
    member.subscribe([topic])


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


def raised(call, *args):
    """Gives an error of a transaction its code."""
    try:
        call(*args)
    except KafkaException as e:
        raise coded(e.args[0]) from e


def txn_open(q):
    global transactional
    transactional = Producer(config(q, transactional_id=q["txn"], transaction_timeout_ms=q["txn_ms"]))
    raised(transactional.init_transactions, 60)


def txn_begin(_):
    raised(transactional.begin_transaction)


def txn_send(q):
    failed = []

    def report(error, _):
        if error is not None:
            failed.append(error)

    for v in q["values"]:
        transactional.produce(q["topic"], v, partition=q["partition"], on_delivery=report)
    transactional.flush(60)
    if failed:
        raise coded(failed[0])


def txn_offsets(_):
    offsets = [TopicPartition(topic, p, offset) for p, offset in given.items()]
    raised(transactional.send_offsets_to_transaction, offsets, member.consumer_group_metadata(), 60)


def txn_commit(_):
    raised(transactional.commit_transaction, 60)


def txn_abort(_):
    raised(transactional.abort_transaction, 60)


serve({"create": create, "describe": describe, "produce": produce, "consume": consume, "time": by_time, "tail": tail, "flow": flow,
       "join": join, "poll": poll, "commit": commit, "txn_open": txn_open, "txn_begin": txn_begin, "txn_send": txn_send,
       "txn_offsets": txn_offsets, "txn_commit": txn_commit, "txn_abort": txn_abort})
os._exit(0)  # a member must not leave its group politely
