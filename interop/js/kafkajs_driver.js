'use strict';
// Drives kafkajs, with the codecs that it leaves to others.

const fs = require('fs');
const { Kafka, CompressionTypes, CompressionCodecs, logLevel } = require('kafkajs');
const snappy = require('kafkajs-snappy');
const lz4 = require('lz4-napi');
const zstd = require('@bokuweb/zstd-wasm');
const { load, save, serve, token, pause, Inbox } = require('./driver.js');

CompressionCodecs[CompressionTypes.Snappy] = snappy;
CompressionCodecs[CompressionTypes.LZ4] = () => ({
  compress: async (encoder) => lz4.compressFrameSync(encoder.buffer),
  decompress: async (buffer) => lz4.decompressFrameSync(buffer),
});
CompressionCodecs[CompressionTypes.ZSTD] = () => ({
  compress: async (encoder) => Buffer.from(zstd.compress(encoder.buffer)),
  decompress: async (buffer) => Buffer.from(zstd.decompress(buffer)),
});
const codecs = { none: 0, gzip: 1, snappy: 2, lz4: 3, zstd: 4 };

// reach is how the library reaches a listener with TLS, and who it is.
function reach(login) {
  if (!login) return {};
  const ssl = { ca: [fs.readFileSync(login.ca)] };
  if (login.certificate) ssl.key = ssl.cert = fs.readFileSync(login.certificate);
  if (!login.mechanism) return { ssl };
  const sasl = { mechanism: login.mechanism.toLowerCase(), username: login.user, password: login.password };
  if (login.token) sasl.oauthBearerProvider = async () => ({ value: token(login) });
  return { ssl, sasl };
}

const kafka = (q) => new Kafka({ brokers: [q.addr], reauthenticationThreshold: 500, ...reach(q.login), logLevel: logLevel.ERROR, retry: { retries: 4, initialRetryTime: 100 } });

async function withAdmin(q, use) {
  const admin = kafka(q).admin();
  await admin.connect();
  try {
    return await use(admin);
  } finally {
    await admin.disconnect();
  }
}

const create = (q) => withAdmin(q, async (admin) => {
  const configEntries = Object.entries(q.configs || {}).map(([name, value]) => ({ name, value }));
  const topic = { topic: q.topic, numPartitions: q.partitions || -1, replicationFactor: q.replication || -1, configEntries };
  const made = await admin.createTopics({ topics: [topic], waitForLeaders: false });
  if (!made) throw Object.assign(new Error('topic exists'), { code: 36 }); // the library hides this code
});

const describe = (q) => withAdmin(q, async (admin) => {
  const { topics } = await admin.fetchTopicMetadata({ topics: [q.topic] });
  return { partitions: topics[0].partitions.length, leaders: topics[0].partitions.filter((p) => p.leader >= 0).length };
});

async function produce(q) {
  const producer = kafka(q).producer({ idempotent: q.idempotent, allowAutoTopicCreation: false });
  await producer.connect();
  try {
    const messages = load(q.file).map((m) => ({ ...m, partition: q.partition }));
    const offsets = [];
    for (const batch of split(messages)) {
      const acks = q.acks === 'all' ? -1 : Number(q.acks);
      const done = await producer.send({ topic: q.topic, messages: batch, acks, compression: codecs[q.codec] });
      for (let i = 0; done && done.length > 0 && i < batch.length; i++) offsets.push(Number(done[0].baseOffset) + i);
    }
    return { offsets };
  } finally {
    await producer.disconnect();
  }
}

// flow sends records one after the other for a while, by one client.
async function flow(q) {
  const producer = kafka(q).producer({ allowAutoTopicCreation: false });
  await producer.connect();
  let count = 0;
  for (let until = Infinity; Date.now() < until; count++) {
    await producer.send({ topic: q.topic, acks: -1, messages: [{ value: String(count), partition: q.partition }] });
    if (count === 0) until = Date.now() + q.wait_ms; // the time begins when it is connected
    await pause(2);
  }
  await producer.disconnect();
  return { count };
}

// split cuts messages into runs, so that a large one travels alone: the
// library puts into one batch whatever one call is given.
function split(messages) {
  const runs = [[]];
  for (const m of messages) {
    const large = m.value && m.value.length > 50000;
    if (large) runs.push([m], []);
    else runs[runs.length - 1].push(m);
  }
  return runs.filter((r) => r.length > 0);
}

async function consume(q) {
  const group = `none-${process.pid}-${Date.now()}-${Math.random()}`;
  const consumer = kafka(q).consumer({
    groupId: group, maxBytesPerPartition: 4 << 20, allowAutoTopicCreation: false, readUncommitted: !q.committed,
  });
  const got = [];
  await consumer.connect();
  await consumer.subscribe({ topic: q.topic, fromBeginning: true });
  await new Promise((resolve, reject) => {
    setTimeout(resolve, q.wait_ms).unref();
    consumer.run({
      autoCommit: false,
      eachMessage: async ({ partition, message }) => {
        if (partition === q.partition && Number(message.offset) >= q.offset && got.length < q.count) {
          got.push(message);
          if (got.length === q.count) resolve();
        }
      },
    }).catch(reject);
    consumer.seek({ topic: q.topic, partition: q.partition, offset: String(q.offset) });
  });
  await consumer.disconnect();
  return save(q.file, got);
}

const time = (q) => withAdmin(q, async (admin) => {
  const found = await admin.fetchTopicOffsetsByTimestamp(q.topic, q.ts);
  return { offset: Number(found.find((p) => p.partition === q.partition).offset) };
});

let member;
let joined; // the request by which the member joined
let transactional;
let transaction;
const inbox = new Inbox();

async function join(q) {
  member = kafka(q).consumer({
    groupId: q.group, sessionTimeout: q.session_ms, heartbeatInterval: 500, maxWaitTimeInMs: 500, allowAutoTopicCreation: false,
    readUncommitted: !q.committed,
  });
  joined = q;
  await member.connect();
  await member.subscribe({ topic: q.topic, fromBeginning: true });
  await member.run({ autoCommit: false, eachMessage: async ({ partition, message }) => inbox.push(partition, message) });
}

const poll = (q) => inbox.poll(q.wait_ms);

async function commit(q) {
  const offset = inbox.given[q.partition];
  await member.commitOffsets([{ topic: q.topic, partition: q.partition, offset: String(offset) }]);
  return { offset };
}

async function txnOpen(q) {
  if (transactional) await transactional.disconnect();
  transactional = kafka(q).producer({ transactionalId: q.txn, transactionTimeout: q.txn_ms, idempotent: true, maxInFlightRequests: 1 });
  await transactional.connect();
}

async function txnBegin() {
  transaction = await transactional.transaction();
}

async function txnSend(q) {
  await transaction.send({ topic: q.topic, messages: q.values.map((value) => ({ value, partition: q.partition })) });
}

async function txnOffsets() {
  const partitions = Object.entries(inbox.given).map(([p, offset]) => ({ partition: Number(p), offset: String(offset) }));
  await transaction.sendOffsets({ consumerGroupId: joined.group, topics: [{ topic: joined.topic, partitions }] });
}

const txnCommit = () => transaction.commit();
const txnAbort = () => transaction.abort();

zstd.init().then(() => serve({
  create, describe, produce, consume, time, join, poll, commit, flow,
  txn_open: txnOpen, txn_begin: txnBegin, txn_send: txnSend, txn_offsets: txnOffsets, txn_commit: txnCommit, txn_abort: txnAbort,
}));
