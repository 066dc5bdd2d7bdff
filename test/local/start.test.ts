import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { mkdtemp, rm, stat } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import * as modern from '@modelcontextprotocol/client';
import * as legacy from '@modelcontextprotocol/sdk/client/index.js';
import * as legacyHttp from '@modelcontextprotocol/sdk/client/streamableHttp.js';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { stablePort } from '../../infra/local/ports.ts';
import { postgresBase } from '../../infra/local/postgres.ts';
import { findRunning } from '../../infra/local/prove/running.ts';
import { slowness } from '../lib/health/support.ts';

/** `npm start` as a newcomer runs it, in a folder that only its owner may enter. */
const root = fileURLToPath(new URL('../..', import.meta.url));
const note = 'Booked by the start test';
let folder: string;
let port: number;
let run: Run | undefined;

interface Run {
  child: ChildProcess;
  output(): string;
  /** Resolves with the exit code. */
  ended: Promise<number | null>;
}

function npmStart(environment: Record<string, string> = {}, ...args: string[]): Run {
  const child = spawn('npm', ['start', '--silent', ...(args.length > 0 ? ['--', ...args] : [])], {
    cwd: root,
    env: { ...process.env, TENANTRY_STATE: folder, PORT: String(port), ...environment },
    stdio: ['ignore', 'pipe', 'pipe'],
    // A group of its own, which gets Ctrl-C as a terminal's foreground group does.
    detached: true,
  });
  let text = '';
  child.stdout!.setEncoding('utf8').on('data', (more: string) => {
    text += more;
  });
  child.stderr!.setEncoding('utf8').on('data', (more: string) => {
    text += more;
  });
  const ended = new Promise<number | null>((resolve) => child.once('close', resolve));
  return { child, output: () => text, ended };
}

/** Resolves when the output holds `text`. @throws Error with the output when the run has ended without it */
function until({ child, output, ended }: Run, text: string): Promise<void> {
  return new Promise((resolve, reject) => {
    const look = () => {
      if (output().includes(text)) resolve();
    };
    child.stdout!.on('data', look);
    void ended.then(() => reject(new Error(`It ended:\n${output()}`)));
    look();
  });
}

async function started(...args: string[]): Promise<Run> {
  const made = npmStart({}, ...args);
  await until(made, 'Tenantry serves MCP at');
  return made;
}

const ctrlC = async ({ child, ended }: Run): Promise<void> => {
  process.kill(-child.pid!, 'SIGINT');
  await ended;
};

interface Entry {
  type: string;
  url: string;
  headers: { Authorization: string };
}
const entries = (): Record<string, Entry> =>
  JSON.parse(readFileSync(join(folder, 'mcp.json'), 'utf8')).mcpServers;

interface Connection {
  callTool(request: { name: string; arguments: object }): Promise<unknown>;
  close(): Promise<void>;
}

async function connect(tenant: string, family: 'modern' | 'legacy'): Promise<Connection> {
  const { url, headers } = entries()[tenant]!;
  const of = { name: 'start-test', version: '1.0.0' };
  if (family === 'modern') {
    const client = new modern.Client(of, { versionNegotiation: { mode: 'auto' } });
    await client.connect(
      new modern.StreamableHTTPClientTransport(new URL(url), { requestInit: { headers } }),
    );
    return client as unknown as Connection;
  }
  const client = new legacy.Client(of);
  const transport = new legacyHttp.StreamableHTTPClientTransport(new URL(url), { requestInit: { headers } });
  await client.connect(transport as Parameters<typeof client.connect>[0]);
  return client as unknown as Connection;
}

interface Item {
  sku: string;
  name: string;
  quantity: number;
}

async function call<T>(
  tenant: string,
  name: string,
  args: object,
  family: 'modern' | 'legacy' = 'modern',
): Promise<T> {
  const client = await connect(tenant, family);
  try {
    const { structuredContent, isError, content } = (await client.callTool({ name, arguments: args })) as {
      structuredContent: T;
      isError?: boolean;
      content: unknown;
    };
    if (isError) throw new Error(JSON.stringify(content));
    return structuredContent;
  } finally {
    await client.close();
  }
}

/** The process and everything that it has started, by the kernel's own account. */
function family(pid: number): number[] {
  const parents = new Map<number, number>();
  for (const name of readdirSync('/proc').filter((entry) => /^\d+$/.test(entry))) {
    try {
      const text = readFileSync(`/proc/${name}/stat`, 'utf8');
      parents.set(Number(name), Number(text.slice(text.lastIndexOf(')') + 2).split(' ')[1]));
    } catch {
      // Gone meanwhile.
    }
  }
  const found = [pid];
  for (const member of found) {
    for (const [child, parent] of parents) if (parent === member) found.push(child);
  }
  return found;
}

/** A zombie, which waits for a parent that may never ask, is gone. */
const lives = (pid: number) => {
  try {
    const text = readFileSync(`/proc/${pid}/stat`, 'utf8');
    return text[text.lastIndexOf(')') + 2] !== 'Z';
  } catch {
    return false;
  }
};

const mainPid = (): number => JSON.parse(readFileSync(join(folder, 'run.json'), 'utf8')).pid;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'tenantry-start-'));
  port = await stablePort([]);
});
afterAll(async () => {
  // After a test that failed it may still be there.
  if (run && lives(run.child.pid!)) await ctrlC(run);
  await rm(postgresBase(join(folder, 'postgres')), { recursive: true, force: true });
  await rm(folder, { recursive: true, force: true });
});

describe.skipIf(process.platform !== 'linux')('npm start', () => {
  test('serves three tenants, each its own inventory, to clients of both protocol families', async () => {
    run = await started();
    expect(run.output()).toContain(`how one failed, is in ${folder}/logs/mcp.log.`);
    expect(Object.keys(entries())).toEqual(['acme', 'globex', 'initech']);
    expect(entries().acme).toMatchObject({ type: 'http', url: `http://127.0.0.1:${port}/mcp` });
    expect((await stat(join(folder, 'mcp.json'))).mode & 0o777).toBe(0o600);
    const seen: string[] = [];
    for (const tenant of ['acme', 'globex', 'initech']) {
      for (const family of ['modern', 'legacy'] as const) {
        const { items } = await call<{ items: Item[] }>(
          tenant,
          'search_inventory',
          { q: 'a', limit: 5 },
          family,
        );
        expect(items).toHaveLength(5);
        if (family === 'modern') seen.push(...items.map(({ name }) => name));
      }
    }
    expect(new Set(seen).size).toBe(15);
    expect(readFileSync(join(folder, 'logs/mcp.log'), 'utf8')).toContain('"tool":"search_inventory"');
  });

  test('watches itself: in public, and with names for the operator', async () => {
    const health = async () => (await fetch(`http://127.0.0.1:${port}/health`)).json();
    const file = join(folder, 'admin.json');
    const { url, token } = JSON.parse(readFileSync(file, 'utf8'));
    const asOperator = (path: string) =>
      fetch(`${url}${path}`, { headers: { authorization: `Bearer ${token}` } });
    // On a machine that is too busy for the first run, the next one comes in a minute.
    await vi.waitFor(
      async () =>
        expect(await health(), await (await asOperator('/health')).text()).toEqual({ status: 'ok' }),
      { timeout: 200_000, interval: 1_000 },
    );
    const operator = await asOperator('/health?tenant=globex');
    expect(await operator.json()).toMatchObject({ tenant: 'globex', state: 'ok', schema_routing: 'ok' });
    const problems = run!.output().match(/(?<=^Health: .*\n(?: {2}.*\n)*) {2}.*/gm) ?? [];
    expect(problems.filter((line) => !slowness.test(line))).toEqual([]);
  });

  test('is attacked with the tokens of tenants that are served', async () => {
    const operate = (verb: string) =>
      promisify(execFile)('npm', ['run', '-s', 'tenants', '--', verb, 'globex'], {
        cwd: root,
        env: { ...process.env, TENANTRY_STATE: folder },
      });
    await operate('suspend');
    expect([...(await findRunning(folder)).tokens.keys()].sort()).toEqual(['acme', 'initech']);
    await operate('resume');
  });

  test('is found by a second start, which leaves it alone', async () => {
    const second = npmStart();
    expect(await second.ended).toBe(1);
    expect(second.output()).toContain(`already running at http://127.0.0.1:${port}/mcp`);
    expect((await fetch(`http://127.0.0.1:${port}/mcp`)).status).toBe(401);
  });

  test('ends with Ctrl-C, leaving no process', async () => {
    const pids = family(run!.child.pid!);
    // npm and node, two PostgreSQL servers with their workers, two functions.
    expect(pids.length).toBeGreaterThan(8);
    await ctrlC(run!);
    expect(pids.filter(lives)).toEqual([]);
  });

  test('keeps data, keys and addresses over a restart', async () => {
    const before = entries();
    run = await started();
    expect(entries().acme!.url).toBe(before.acme!.url);
    const headers = {
      ...before.globex!.headers,
      'content-type': 'application/json',
      accept: 'application/json, text/event-stream',
    };
    const body = JSON.stringify({ jsonrpc: '2.0', id: 1, method: 'tools/list', params: {} });
    expect((await fetch(before.globex!.url, { method: 'POST', headers, body })).status).toBe(200);

    const { items } = await call<{ items: Item[] }>('initech', 'search_inventory', { q: 'a', limit: 1 });
    const { sku, quantity } = items[0]!;
    await call('initech', 'adjust_stock', {
      sku,
      change: 7,
      reason: 'received',
      note,
      idempotency_key: 'start-test-1',
    });
    await ctrlC(run);
    run = await started();
    const again = await call<{ item: Item }>('initech', 'get_item', { sku });
    expect(again.item.quantity).toBe(quantity + 7);
  });

  test('starts again after it was killed, having cleaned up', async () => {
    const pids = family(mainPid());
    process.kill(pids[0]!, 'SIGKILL');
    await run!.ended;
    run = await started();
    expect(run.output()).toContain('of an earlier run that was killed');
    expect(pids.filter(lives)).toEqual([]);
    const { items } = await call<{ items: Item[] }>('acme', 'search_inventory', { q: 'a', limit: 1 });
    expect(items).toHaveLength(1);
    await ctrlC(run);
  });

  test('leaves no process when it is ended on its way up', async () => {
    run = npmStart();
    await until(run, 'Installing catalog');
    const pids = family(run.child.pid!);
    expect(pids.length).toBeGreaterThan(4);
    // To npm alone, as a supervisor does it.
    run.child.kill('SIGTERM');
    await run.ended;
    expect(pids.filter(lives)).toEqual([]);
  });

  test('starts over when it is told to', async () => {
    const key = entries().acme!.headers.Authorization;
    run = await started('--fresh');
    const { items } = await call<{ items: Item[] }>('initech', 'search_inventory', { q: 'a', limit: 1 });
    const history = await call('initech', 'stock_history', { sku: items[0]!.sku });
    expect(JSON.stringify(history)).not.toContain(note);
    const headers = { authorization: key, 'content-type': 'application/json' };
    expect(
      (await fetch(`http://127.0.0.1:${port}/mcp`, { method: 'POST', headers, body: '{}' })).status,
    ).toBe(401);
    await ctrlC(run);
  });

  test('names every fault of its settings, and a port that is taken', async () => {
    const faulty = npmStart({ PORT: 'eighty' }, '--frehs');
    expect(await faulty.ended).toBe(1);
    expect(faulty.output()).toContain('PORT is eighty: it must be a whole number from 1 to 65535.');
    expect(faulty.output()).toContain("Unknown option '--frehs'");

    const other = createServer();
    await new Promise<void>((resolve) => other.listen(port, '127.0.0.1', resolve));
    const refused = npmStart();
    expect(await refused.ended).toBe(1);
    other.close();
    expect(refused.output()).toContain(`Port ${port} is in use by another program`);
    expect(family(process.pid).filter((pid) => pid === refused.child.pid)).toEqual([]);
  });
});
