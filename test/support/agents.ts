import { randomInt, randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import * as modern from '@modelcontextprotocol/client';
import * as legacy from '@modelcontextprotocol/sdk/client/index.js';
import * as legacyHttp from '@modelcontextprotocol/sdk/client/streamableHttp.js';

/** Agents of one tenant at work through the MCP endpoint, and the account of what they were told. */
export interface Agents {
  /** Adjustments that were acknowledged. */
  readonly acknowledged: number;
  /** Calls that were answered with an error, or not at all. */
  readonly errors: readonly string[];
  /** From now until each of them has been answered once more. */
  answered(): Promise<void>;
  /** Ends them, and reads back through the endpoint all that was acknowledged. @returns what must not be */
  stop(): Promise<string[]>;
}

/** What the tenant's items hold at first: no adjustment takes one below zero. */
export const stock = 1_000_000;
export const skus = ['A-1', 'A-2', 'A-3'];
/** Between two calls of an agent, ms: a mover on a busy server leaves most of its time to others. */
const rest = 50;
/** Adjustments made between an agent's own one and its look at the history: far fewer. */
const page = 100;

interface Client {
  callTool(request: { name: string; arguments: object }): Promise<unknown>;
  close(): Promise<void>;
}
interface Movement {
  movement_id: string;
  change: number;
  quantity: number;
  note: string | null;
}
interface Acknowledged {
  readonly sku: string;
  readonly change: number;
  readonly movement: string;
}

async function connect(family: 'modern' | 'legacy', url: string, key: string): Promise<Client> {
  const of = { name: `${family}-agent`, version: '1.0.0' };
  const requestInit = { headers: { authorization: `Bearer ${key}` } };
  if (family === 'modern') {
    const client = new modern.Client(of, { versionNegotiation: { mode: { pin: '2026-07-28' } } });
    await client.connect(new modern.StreamableHTTPClientTransport(new URL(url), { requestInit }));
    return client as unknown as Client;
  }
  const client = new legacy.Client(of);
  const transport = new legacyHttp.StreamableHTTPClientTransport(new URL(url), { requestInit });
  await client.connect(transport as Parameters<typeof client.connect>[0]);
  return client as unknown as Client;
}

/** One agent that writes and one that only reads, in each protocol family. */
export async function startAgents(url: string, key: string): Promise<Agents> {
  const clients = await Promise.all(
    (['modern', 'legacy', 'modern', 'legacy'] as const).map((family) => connect(family, url, key)),
  );
  const acknowledged = new Map<string, Acknowledged>();
  const errors: string[] = [];
  const wrong: string[] = [];
  const answers = clients.map(() => 0);
  let stopped = false;

  /** As often as it takes: a repeated call carries the key of the first. */
  async function call<T>(agent: number, name: string, args: object): Promise<T> {
    for (;;) {
      try {
        const answer = (await clients[agent]!.callTool({ name, arguments: args })) as {
          structuredContent: T;
          isError?: boolean;
        };
        if (answer.isError) throw new Error(JSON.stringify(answer));
        answers[agent]! += 1;
        return answer.structuredContent;
      } catch (error) {
        errors.push(`${name}: ${(error as Error).message}`);
        if (errors.length > 10_000) throw error;
        await sleep(50);
      }
    }
  }

  async function write(agent: number): Promise<void> {
    const [id, sku] = [randomUUID(), skus[randomInt(skus.length)]!];
    const change = randomInt(1, 10) * (randomInt(2) === 0 ? 1 : -1);
    const made = await call<{ movement_id: string }>(agent, 'adjust_stock', {
      ...{ sku, change, reason: 'counted', note: id, idempotency_key: id },
    });
    acknowledged.set(id, { sku, change, movement: made.movement_id });
    // Whichever home answers now, it is one that has the write.
    const { movements } = await call<{ movements: Movement[] }>(agent, 'stock_history', { sku, limit: page });
    if (!movements.some(({ movement_id }) => movement_id === made.movement_id))
      wrong.push(`an agent's own write ${id} was acknowledged, and its next call did not see it`);
  }

  const work = clients.map(async (_, agent) => {
    while (!stopped) {
      if (agent < 2) await write(agent);
      else await call(agent, 'get_item', { sku: skus[randomInt(skus.length)] });
      await sleep(rest);
    }
  });
  // Thrown by `stop`.
  for (const one of work) one.catch(() => {});

  async function history(sku: string): Promise<Movement[]> {
    const all: Movement[] = [];
    for (let cursor: string | undefined; ; ) {
      const args = { sku, limit: page, ...(cursor && { cursor }) };
      const { movements, next_cursor } = await call<{ movements: Movement[]; next_cursor?: string }>(
        0,
        'stock_history',
        args,
      );
      all.push(...movements);
      if (next_cursor === undefined) return all.reverse();
      cursor = next_cursor;
    }
  }

  async function check(sku: string): Promise<void> {
    const movements = await history(sku);
    for (const [id, { change, movement }] of [...acknowledged].filter(([, one]) => one.sku === sku)) {
      const found = movements.filter(({ note }) => note === id);
      if (found.length !== 1 || found[0]!.movement_id !== movement || found[0]!.change !== change)
        wrong.push(`${sku}: the acknowledged write ${id} is there ${found.length} times`);
    }
    let balance = stock;
    for (const { change, quantity, note } of movements) {
      balance += change;
      if (balance !== quantity) wrong.push(`${sku}: after ${note} there were ${quantity}, not ${balance}`);
      balance = quantity;
    }
    const { item } = await call<{ item: { quantity: number } }>(0, 'get_item', { sku });
    if (item.quantity !== balance) wrong.push(`${sku}: ${item.quantity} in stock, ${balance} by its history`);
  }

  return {
    get acknowledged() {
      return acknowledged.size;
    },
    errors,
    async answered() {
      const before = [...answers];
      while (answers.some((count, agent) => count <= before[agent]!)) await sleep(5);
    },
    async stop() {
      stopped = true;
      await Promise.all(work);
      for (const sku of skus) await check(sku);
      await Promise.all(clients.map((client) => client.close()));
      return wrong;
    },
  };
}
