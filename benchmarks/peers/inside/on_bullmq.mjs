// node on_bullmq.mjs worker | one N | bulk N | paced N: BullMQ's tasks, calls and producer, as counting.py and produce.py
import fs from 'fs';
import IORedis from 'ioredis';
import { Queue, Worker } from 'bullmq';

const folder = process.env.PEERS_FOLDER;
const connection = new IORedis({ host: '127.0.0.1', port: +process.env.PEERS_REDIS_PORT, maxRetriesPerRequest: null });
const [, , how, text] = process.argv;
const count = +text;
const now = () => BigInt(Math.round((performance.timeOrigin + performance.now()) * 1e3)) * 1000n;
const payload = (number, sent) => ({ id: number, data: 'x'.repeat(180), ...(sent ? { sent: sent.toString() } : {}) });

if (how === 'worker') {
  const counts = fs.openSync(`${folder}/count.${process.pid}`, 'w+');
  const latencies = fs.openSync(`${folder}/latencies`, 'a');
  const buffer = Buffer.alloc(24);
  let done = 0n, first = 0n;
  const worker = new Worker('peers', async job => {
    const began = now();
    if (job.data.sent) {
      const entry = Buffer.alloc(8);
      entry.writeBigUInt64LE(began - BigInt(job.data.sent));
      fs.writeSync(latencies, entry);
    }
    first ||= began;
    buffer.writeBigUInt64LE(++done, 0);
    buffer.writeBigUInt64LE(first, 8);
    buffer.writeBigUInt64LE(now(), 16);
    fs.writeSync(counts, buffer, 0, 24, 0);
  }, { connection, concurrency: 100 });
  worker.on('error', error => console.error(String(error)));
  process.on('SIGTERM', () => process.exit(0));
} else {
  const queue = new Queue('peers', { connection, defaultJobOptions: { removeOnComplete: true, removeOnFail: true } });
  await queue.waitUntilReady();
  const cpu = process.cpuUsage(), began = now();
  if (how === 'bulk') {
    for (let at = 0; at < count; at += 1000) {
      const jobs = [];
      for (let number = at; number < Math.min(count, at + 1000); number++) jobs.push({ name: 'noop', data: payload(number) });
      await queue.addBulk(jobs);
    }
  } else {
    for (let number = 0; number < count; number++) {
      const sent = now();
      await queue.add('noop', payload(number, how === 'paced' ? sent : 0n));
      if (how === 'paced') await new Promise(go => setTimeout(go, Math.max(0, 20 - Number(now() - sent) / 1e6)));
    }
  }
  const seconds = Number(now() - began) / 1e9, used = process.cpuUsage(cpu);
  console.log(`{"began": ${began}, "seconds": ${seconds}, "cpu": ${(used.user + used.system) / 1e6}}`);
  process.exit(0);
}
