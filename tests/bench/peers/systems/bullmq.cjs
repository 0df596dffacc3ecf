// BullMQ on Redis: the same as work.py and the other systems, for Node.js. `node bullmq.cjs measure PLAN | work URL`.
"use strict";

const { spawn } = require("node:child_process");
const { setTimeout: sleep } = require("node:timers/promises");
const { Queue, QueueEvents, Worker } = require("bullmq");

const CALLERS = 16;
const BYTES = 300;
const DATA = { payload: "p".repeat(BYTES) };
const WARM_SECONDS = 1;
const CONCURRENCY = 50; // jobs at a time in a process; its default is 1
const BULK = 1000; // jobs in one addBulk, which is one transaction
const POLL_MS = 20;

const now = () => process.hrtime.bigint();
const seconds = (from) => Number(now() - from) / 1e9;
const connectionTo = (url) => ({ host: new URL(url).hostname, port: Number(new URL(url).port), maxRetriesPerRequest: null });

function work(url) {
  const handle = async () => String(now()).padEnd(BYTES);
  new Worker("bench", handle, { connection: connectionTo(url), concurrency: CONCURRENCY });
}

const tell = (what) => console.log(JSON.stringify(what));

async function single(call, duration) {
  const started = now();
  let done = 0;
  const caller = async () => {
    while (seconds(started) < duration) {
      await call();
      done += 1;
    }
  };
  await Promise.all(Array.from({ length: CALLERS }, caller));
  return done;
}

async function bulk(queue, count) {
  for (let left = count; left > 0; left -= BULK) {
    await queue.addBulk(Array.from({ length: Math.min(BULK, left) }, () => ({ name: "handle", data: DATA })));
  }
  while ((await queue.getJobCountByTypes("waiting", "active", "prioritized")) > 0) await sleep(POLL_MS);
  return count;
}

async function timed(phase, work) {
  tell({ begins: phase });
  const started = now();
  const jobs = await work();
  tell({ ended: phase, jobs, seconds: seconds(started) });
}

async function wakes(call, count) {
  const taken = [];
  for (let wake = 0; wake < count; wake += 1) {
    await sleep(5 + 100 * Math.random());
    const called = now();
    taken.push(Number(BigInt((await call()).trim()) - called));
  }
  return taken;
}

async function measure(plan) {
  const connection = connectionTo(plan.url);
  const queue = new Queue("bench", { connection });
  const events = new QueueEvents("bench", { connection });
  await events.waitUntilReady();
  const call = async () => (await queue.add("handle", DATA)).waitUntilFinished(events);
  const workers = Array.from({ length: plan.workers }, () => spawn(process.execPath, [__filename, "work", plan.url]));
  try {
    await single(call, WARM_SECONDS);
    await timed("single", () => single(call, plan.single_seconds));
    await timed("bulk", () => bulk(queue, plan.bulk_jobs));
    tell({ wakes: await wakes(call, plan.wakes) });
  } finally {
    for (const worker of workers) worker.kill("SIGKILL");
  }
}

const [role, argument] = process.argv.slice(2);
if (role === "work") work(argument);
else measure(JSON.parse(argument)).then(() => process.exit(0));
