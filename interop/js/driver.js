'use strict';
// What the drivers in JavaScript share: the protocol, and records in files.

const fs = require('fs');
const readline = require('readline');

const data = (text) => (text === null || text === undefined ? null : Buffer.from(text, 'base64'));
const text = (content) => (content === null || content === undefined ? null : Buffer.from(content).toString('base64'));

// Both libraries take headers as an object: a name that comes twice has a list.
function load(path) {
  return fs.readFileSync(path, 'utf8').split('\n').filter(Boolean).map((line) => {
    const r = JSON.parse(line);
    const headers = {};
    for (const h of r.h || []) {
      const value = data(h.v);
      if (h.n in headers) headers[h.n] = [].concat(headers[h.n], value);
      else headers[h.n] = value;
    }
    const message = { key: data(r.k), value: data(r.v), headers };
    if (r.ts) message.timestamp = String(r.ts);
    return message;
  });
}

function save(path, messages) {
  const lines = messages.map((m) => {
    const headers = [];
    for (const [n, value] of Object.entries(m.headers || {})) {
      for (const v of Array.isArray(value) ? value : [value]) headers.push({ n, v: text(v) });
    }
    return JSON.stringify({ k: text(m.key), v: text(m.value), h: headers, ts: Number(m.timestamp), o: Number(m.offset) }) + '\n';
  });
  fs.writeFileSync(path, lines.join(''));
  return { count: messages.length };
}

// An error's code is somewhere inside: libraries wrap what the broker said.
function code(e) {
  for (let at = e; at; at = at.cause || at.originalError || (at.errors && at.errors[0])) {
    if (typeof at.code === 'number') return at.code;
  }
  return 0;
}

// poll hands out what the consumer has been given since the last time, and
// waits for some when there is none.
class Inbox {
  constructor() {
    this.messages = [];
    this.given = {};
    this.wake = () => {};
  }

  push(partition, message) {
    this.messages.push({ p: partition, o: Number(message.offset), v: message.value.toString() });
    this.wake();
  }

  async poll(waitMs) {
    if (this.messages.length === 0) {
      let timer;
      await new Promise((resolve) => {
        this.wake = resolve;
        timer = setTimeout(resolve, waitMs);
      });
      clearTimeout(timer);
    }
    const records = this.messages;
    this.messages = [];
    for (const r of records) this.given[r.p] = r.o + 1;
    return { records };
  }
}

// token reads the token of a login by OAUTHBEARER.
const token = (login) => fs.readFileSync(login.token, 'utf8').trim();

// pause waits for milliseconds.
const pause = (ms) => new Promise((resolve) => { setTimeout(resolve, ms); });

async function serve(ops) {
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const q = JSON.parse(line);
    let reply;
    try {
      reply = { ok: true, ...(await ops[q.op](q)) };
    } catch (e) {
      reply = { ok: false, error: String(e), code: code(e) };
    }
    process.stdout.write('@leat ' + JSON.stringify(reply) + '\n');
  }
  process.exit(0); // a member must not leave its group politely
}

module.exports = { load, save, serve, token, pause, Inbox };
