"""Drives aiokafka."""

import asyncio
import json
import os
import sys

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.abc import AbstractTokenProvider
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import ProducerFenced, for_code
from aiokafka.helpers import create_ssl_context

from driver import Coded, load, save, send, token


member = None
given = {}
group = None  # of the member
topic = None  # that it reads
transactional = None


def check(code, message=None):
    if code:
        raise Coded(code, message or for_code(code).__name__)


class Tokens(AbstractTokenProvider):
    """Gives the library the token of a login."""

    def __init__(self, login):
        self.login = login

    async def token(self):
        return token(self.login)


def reach(q):
    """How the library reaches the broker, and who it is."""
    c = {"bootstrap_servers": q["addr"]}
    login = q.get("login")
    if login is None:
        return c
    certificate = login.get("certificate")
    context = create_ssl_context(cafile=login["ca"], certfile=certificate, keyfile=certificate)
    c.update(security_protocol="SSL", ssl_context=context)
    mechanism = login.get("mechanism")
    if mechanism is not None:
        c.update(security_protocol="SASL_SSL", sasl_mechanism=mechanism)
    if mechanism == "OAUTHBEARER":
        c["sasl_oauth_token_provider"] = Tokens(login)
    elif mechanism is not None:
        c.update(sasl_plain_username=login["user"], sasl_plain_password=login["password"])
    return c


async def create(q):
    admin = AIOKafkaAdminClient(**reach(q))
    await admin.start()
    try:
        topic = NewTopic(q["topic"], q.get("partitions", -1), q.get("replication", -1), topic_configs=q.get("configs", {}))
        reply = await admin.create_topics([topic])
    finally:
        await admin.close()
    for _, code, *message in reply.topic_errors:
        check(code, message[0] if message else None)


async def describe(q):
    admin = AIOKafkaAdminClient(**reach(q))
    await admin.start()
    try:
        t = (await admin.describe_topics([q["topic"]]))[0]
    finally:
        await admin.close()
    check(t["error_code"])
    return {"partitions": len(t["partitions"]), "leaders": sum(p["leader"] >= 0 for p in t["partitions"])}


async def produce(q):
    acks = q["acks"] if q["acks"] == "all" else int(q["acks"])
    codec = None if q["codec"] == "none" else q["codec"]
    producer = AIOKafkaProducer(**reach(q), acks=acks, enable_idempotence=q["idempotent"], compression_type=codec,
                                linger_ms=20, max_request_size=10_000_000, request_timeout_ms=5_000)
    await producer.start()
    try:
        sent = [await producer.send(q["topic"], value, key, q["partition"], ts, headers) for key, value, headers, ts in load(q["file"])]
        done = await asyncio.gather(*sent)
    finally:
        await producer.stop()
    return {"offsets": [d.offset for d in done if d is not None]}


def consumer(q, *topics, **more):
    return AIOKafkaConsumer(*topics, **reach(q), enable_auto_commit=False, auto_offset_reset="earliest",
                            max_partition_fetch_bytes=4 << 20, **more)


def isolation(q):
    return "read_committed" if q["committed"] else "read_uncommitted"


async def consume(q):
    got = []
    tp = TopicPartition(q["topic"], q["partition"])
    loop = asyncio.get_running_loop()
    until = loop.time() + q["wait_ms"] / 1000
    c = consumer(q, isolation_level=isolation(q))
    await c.start()
    c.assign([tp])
    c.seek(tp, q["offset"])
    while len(got) < q["count"] and loop.time() < until:
        for m in (await c.getmany(tp, timeout_ms=200)).get(tp, []):
            got.append((m.key, m.value, m.headers, m.timestamp, m.offset))
    await c.stop()
    return save(q["file"], got)


async def by_time(q):
    tp = TopicPartition(q["topic"], q["partition"])
    c = consumer(q)
    await c.start()
    found = (await c.offsets_for_times({tp: q["ts"]}))[tp]
    await c.stop()
    return {"offset": -1 if found is None else found.offset}


async def join(q):
    global member, group, topic
    group, topic = q["group"], q["topic"]
    member = consumer(q, topic, group_id=group, session_timeout_ms=q["session_ms"], heartbeat_interval_ms=500, isolation_level=isolation(q))
    await member.start()


async def poll(q):
    records = []
    for batch in (await member.getmany(timeout_ms=q["wait_ms"])).values():
        for m in batch:
            records.append({"p": m.partition, "o": m.offset, "v": m.value.decode()})
            given[m.partition] = m.offset + 1
    return {"records": records}


async def commit(q):
    offset = given[q["partition"]]
    await member.commit({TopicPartition(q["topic"], q["partition"]): offset})
    return {"offset": offset}


async def txn_open(q):
    global transactional
    transactional = AIOKafkaProducer(**reach(q), transactional_id=q["txn"], transaction_timeout_ms=q["txn_ms"])
    await transactional.start()


async def txn_begin(_):
    await transactional.begin_transaction()


async def txn_send(q):
    await asyncio.gather(*[await transactional.send(q["topic"], v.encode(), partition=q["partition"]) for v in q["values"]])


async def txn_offsets(_):
    await transactional.send_offsets_to_transaction({TopicPartition(topic, p): offset for p, offset in given.items()}, group)


async def txn_commit(_):
    try:
        await transactional.commit_transaction()
    except ProducerFenced as e:  # the library drops the code
        raise Coded(90, str(e)) from e


async def txn_abort(_):
    await transactional.abort_transaction()


async def main():
    """Like driver.serve, but the library's tasks run while input is awaited."""
    do = {"create": create, "describe": describe, "produce": produce, "consume": consume, "time": by_time,
          "join": join, "poll": poll, "commit": commit, "txn_open": txn_open, "txn_begin": txn_begin, "txn_send": txn_send,
          "txn_offsets": txn_offsets, "txn_commit": txn_commit, "txn_abort": txn_abort}
    while line := await asyncio.to_thread(sys.stdin.readline):
        q = json.loads(line)
        try:
            send({"ok": True, **(await do[q["op"]](q) or {})})
        except Coded as e:
            send({"ok": False, "error": str(e), "code": e.code})
        except Exception as e:  # the suite decides what an error means
            send({"ok": False, "error": f"{type(e).__name__}: {e}", "code": getattr(e, "errno", None) or 0})
    os._exit(0)  # a member must not leave its group politely


asyncio.run(main())
