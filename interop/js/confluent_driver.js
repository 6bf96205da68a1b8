'use strict';
// Drives @confluentinc/kafka-javascript (librdkafka) by its promise API.

const { Kafka, logLevel } = require('@confluentinc/kafka-javascript').KafkaJS;
const { load, save, serve, token, Inbox } = require('./driver.js');

// reach is how the library reaches a listener with TLS, and who it is.
function reach(login) {
  if (!login) return { kafkaJS: {} };
  const c = { kafkaJS: { ssl: true }, 'ssl.ca.location': login.ca, 'broker.address.family': 'v4' };
  if (login.certificate) c['ssl.certificate.location'] = c['ssl.key.location'] = login.certificate;
  if (!login.mechanism) return c;
  const sasl = { mechanism: login.mechanism.toLowerCase(), username: login.user, password: login.password };
  if (login.token) sasl.oauthBearerProvider = async () => ({ value: token(login), principal: login.user, lifetime: Date.now() + 600000 });
  c.kafkaJS.sasl = sasl;
  return c;
}

function kafka(q, own) {
  const { kafkaJS, ...more } = reach(q.login);
  return new Kafka({ kafkaJS: { brokers: [q.addr], logLevel: logLevel.ERROR, ...kafkaJS, ...own }, ...more });
}

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
  const made = await admin.createTopics({ topics: [topic] });
  if (!made) throw Object.assign(new Error('topic exists'), { code: 36 }); // the library hides this code
});

// describe uses a producer's connection: an admin client begins before it has a token. The reason why a connection fails is told to the
// logger alone.
async function describe(q) {
  let refuse;
  const refused = new Promise((_, reject) => { refuse = reject; });
  const nothing = () => {};
  const logger = {
    namespace: () => logger, setLogLevel: nothing, debug: nothing, info: nothing, warn: nothing,
    error: (message) => { if (/authentication error|SSL routines|SSL handshake/.test(message)) refuse(new Error(message)); },
  };
  const producer = kafka(q, { logger }).producer();
  await Promise.race([producer.connect(), refused]);
  const admin = producer.dependentAdmin();
  await admin.connect();
  try {
    return await partitionsOf(admin, q.topic);
  } finally {
    await admin.disconnect();
    await producer.disconnect();
  }
}

async function partitionsOf(admin, topic) {
  const topics = await admin.fetchTopicMetadata({ topics: [topic] });
  const { partitions } = (topics.topics || topics)[0];
  return { partitions: partitions.length, leaders: partitions.filter((p) => (p.leader ?? p.leaderId) >= 0).length };
}

async function produce(q) {
  const producer = kafka(q).producer({
    kafkaJS: { acks: q.acks === 'all' ? -1 : Number(q.acks), idempotent: q.idempotent, compression: q.codec },
    'linger.ms': 20, 'message.max.bytes': 10000000, 'message.timeout.ms': 60000,
    'topic.metadata.propagation.max.ms': 1000,
  });
  await producer.connect();
  try {
    const messages = load(q.file).map((m) => ({ ...m, partition: q.partition }));
    const done = await producer.send({ topic: q.topic, messages });
    return { offsets: done.length === 1 && done[0].baseOffset >= 0 ? messages.map((_, i) => Number(done[0].baseOffset) + i) : [] };
  } finally {
    await producer.disconnect();
  }
}

async function consume(q) {
  const group = `none-${process.pid}-${Date.now()}-${Math.random()}`;
  const consumer = kafka(q).consumer({ kafkaJS: { groupId: group, fromBeginning: true, autoCommit: false, readUncommitted: !q.committed } });
  const got = [];
  await consumer.connect();
  await consumer.subscribe({ topic: q.topic });
  await new Promise((resolve, reject) => {
    setTimeout(resolve, q.wait_ms).unref();
    consumer.run({
      eachMessage: async ({ partition, message }) => {
        if (partition === q.partition && Number(message.offset) >= q.offset && got.length < q.count) {
          got.push(message);
          if (got.length === q.count) resolve();
        }
      },
    }).catch(reject);
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
    kafkaJS: { groupId: q.group, sessionTimeout: q.session_ms, heartbeatInterval: 500, fromBeginning: true, autoCommit: false, readUncommitted: !q.committed },
  });
  joined = q;
  await member.connect();
  await member.subscribe({ topic: q.topic });
  await member.run({ eachMessage: async ({ partition, message }) => inbox.push(partition, message) });
}

const poll = (q) => inbox.poll(q.wait_ms);

async function commit(q) {
  const offset = inbox.given[q.partition];
  await member.commitOffsets([{ topic: q.topic, partition: q.partition, offset: String(offset) }]);
  return { offset };
}

async function txnOpen(q) {
  transactional = kafka(q).producer({ kafkaJS: { transactionalId: q.txn, transactionTimeout: q.txn_ms } });
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
  await transaction.sendOffsets({ consumer: member, topics: [{ topic: joined.topic, partitions }] });
}

const txnCommit = () => transaction.commit();
const txnAbort = () => transaction.abort();

serve({
  create, describe, produce, consume, time, join, poll, commit,
  txn_open: txnOpen, txn_begin: txnBegin, txn_send: txnSend, txn_offsets: txnOffsets, txn_commit: txnCommit, txn_abort: txnAbort,
});
