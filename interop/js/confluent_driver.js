'use strict';
// Drives @confluentinc/kafka-javascript (librdkafka) by its promise API.

const { Kafka, logLevel } = require('@confluentinc/kafka-javascript').KafkaJS;
const { load, save, serve, Inbox } = require('./driver.js');

const kafka = (q, more) => new Kafka({ kafkaJS: { brokers: [q.addr], logLevel: logLevel.ERROR }, ...more });

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

const describe = (q) => withAdmin(q, async (admin) => {
  const topics = await admin.fetchTopicMetadata({ topics: [q.topic] });
  const { partitions } = (topics.topics || topics)[0];
  return { partitions: partitions.length, leaders: partitions.filter((p) => (p.leader ?? p.leaderId) >= 0).length };
});

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
  const consumer = kafka(q).consumer({ kafkaJS: { groupId: group, fromBeginning: true, autoCommit: false } });
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
const inbox = new Inbox();

async function join(q) {
  member = kafka(q).consumer({
    kafkaJS: { groupId: q.group, sessionTimeout: q.session_ms, heartbeatInterval: 500, fromBeginning: true, autoCommit: false },
  });
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

serve({ create, describe, produce, consume, time, join, poll, commit });
