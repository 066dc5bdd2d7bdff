import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { readFileSync, statSync } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { stablePort } from '../../infra/local/ports.ts';
import { postgresBase } from '../../infra/local/postgres.ts';

/** The command line as an operator runs it, over a whole local cloud. */
const root = fileURLToPath(new URL('../..', import.meta.url));
let folder: string;
let port: number;
let cloud: ChildProcess;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'tenantry-admin-'));
  port = await stablePort([]);
  cloud = spawn(process.execPath, ['infra/local/main.ts'], {
    cwd: root,
    env: { ...process.env, TENANTRY_STATE: folder, PORT: String(port) },
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  await new Promise<void>((resolve, reject) => {
    let text = '';
    cloud.stdout!.setEncoding('utf8').on('data', (more: string) => {
      text += more;
      if (text.includes('Tenantry serves MCP at')) resolve();
    });
    cloud.once('close', () => reject(new Error(`It ended:\n${text}`)));
  });
});
afterAll(async () => {
  const ended = new Promise((resolve) => cloud.once('close', resolve));
  if (cloud.kill('SIGINT')) await ended;
  await rm(postgresBase(join(folder, 'postgres')), { recursive: true, force: true });
  await rm(folder, { recursive: true, force: true });
});

interface Ran {
  code: number;
  stdout: string;
  stderr: string;
}

function tenants(args: string, environment: Record<string, string> = {}): Promise<Ran> {
  const { TENANTRY_ADMIN_URL: _, ...inherited } = process.env;
  const env = { ...inherited, TENANTRY_STATE: folder, PORT: String(port), ...environment };
  return new Promise((resolve) => {
    execFile(
      process.execPath,
      ['functions/admin/cli/main.ts', ...args.split(' ').filter(Boolean)],
      { cwd: root, env },
      (error, stdout, stderr) => resolve({ code: Number(error?.code ?? 0), stdout, stderr }),
    );
  });
}

/** The answer of a command that succeeds, for programs. */
// biome-ignore lint/suspicious/noExplicitAny: JSON as a program gets it
async function json(args: string): Promise<any> {
  const { code, stdout, stderr } = await tenants(`${args} --json`);
  if (code !== 0) throw new Error(stderr);
  return JSON.parse(stdout);
}

/** @returns the HTTP status of a call with this key */
async function callStatus(token: string): Promise<number> {
  const response = await fetch(`http://127.0.0.1:${port}/mcp`, {
    method: 'POST',
    headers: {
      authorization: `Bearer ${token}`,
      'content-type': 'application/json',
      accept: 'application/json, text/event-stream',
    },
    body: JSON.stringify({
      jsonrpc: '2.0',
      id: 1,
      method: 'tools/call',
      params: { name: 'search_inventory', arguments: { q: 'a', limit: 1 } },
    }),
  });
  await response.text();
  return response.status;
}

describe('npm run tenants', () => {
  it.each([
    ['starter', '', { strategy: 'rls', home: { cluster: { kind: 'shared' } } }],
    ['pro', '', { strategy: 'schema', home: { cluster: { kind: 'shared' } } }],
    [
      'enterprise',
      ' --placement shared-cluster',
      { strategy: 'database', home: { cluster: { kind: 'shared' } } },
    ],
    [
      'enterprise',
      ' --placement dedicated',
      { strategy: 'database', home: { cluster: { kind: 'dedicated' } } },
    ],
  ])(
    'takes a tenant of tier %s%s in, to its first call, its suspension and its end',
    async (tier, placement, expected) => {
      const slug = `hooli-${tier}${placement.replace(' --placement ', '-')}`;
      const made = await json(`create ${slug} --tier ${tier}${placement} --wait`);
      expect(made.tenant).toMatchObject({ slug, tier, status: 'active', ...expected });
      expect(made.operation).toMatchObject({ state: 'done', tenant: slug });
      expect(await json(`show ${slug}`)).toEqual(made.tenant);

      const key = await json(`keys create ${slug} --scopes inventory:read --name first --days 1`);
      expect(await callStatus(key.token)).toBe(200);
      expect((await tenants(`suspend ${slug}`)).stdout).toBe(`${slug} is suspended.\n`);
      expect(await callStatus(key.token)).toBe(403);
      expect((await tenants(`why ${slug}`)).stdout).toContain(`npm run tenants -- resume ${slug}`);
      expect((await tenants(`resume ${slug}`)).code).toBe(0);
      expect(await callStatus(key.token)).toBe(200);
      await json(`keys revoke ${slug} ${key.id}`);
      expect(await json(`keys list ${slug}`)).toMatchObject([
        { id: key.id, name: 'first', revokedAt: expect.any(String) },
      ]);

      const second = await json(`keys create ${slug} --scopes inventory:read`);
      const left = await json(`offboard ${slug} --grace 0 --yes --wait`);
      expect(left.tenant).toMatchObject({ status: 'offboarded', home: null });
      expect(left.operation).toMatchObject({ state: 'done', result: { left: [] } });
      expect(await callStatus(second.token)).toBe(403);
      expect(await json(`keys list ${slug}`)).toEqual([]);
      // Again is the same answer; nothing brings it back.
      expect((await json(`offboard ${slug} --yes`)).operation.id).toBe(left.operation.id);
      for (const args of [`create ${slug} --tier ${tier}${placement}`, `resume ${slug}`])
        expect((await tenants(args)).code).toBe(3);
    },
  );

  it('gives out tokens of the local issuer, and none for a deployment', async () => {
    const { token } = await json('token acme');
    expect(await callStatus(token)).toBe(200);
    expect(await callStatus((await json('token globex --scopes inventory:write')).token)).not.toBe(401);
    const deployed = await tenants('token acme', { TENANTRY_ADMIN_URL: 'https://admin.example.com' });
    expect([deployed.code, deployed.stderr]).toEqual([3, expect.stringContaining('keys create acme')]);
    expect((await tenants('token nobody')).code).toBe(3);
  });

  it('undoes an offboarding in its grace period', async () => {
    await json('create stays --tier pro --wait');
    const key = await json('keys create stays --scopes inventory:read');
    const left = await tenants('offboard stays --grace 12h --yes');
    expect(left.stdout).toMatch(/can be undone until .*\d{4}-\d\d-\d\d \d\d:\d\d/);
    expect([left.code, left.stderr]).toEqual([0, expect.stringContaining('npm run tenants -- resume stays')]);
    expect(await callStatus(key.token)).toBe(403);
    expect(await json('why stays')).toMatchObject({
      status: 'offboarding',
      run: ['npm run tenants -- resume stays', 'npm run tenants -- operations --watch'],
    });
    expect((await json('resume stays')).tenant.status).toBe('active');
    expect(await callStatus(key.token)).toBe(200);
    expect((await json('show stays')).operation).toMatchObject({ kind: 'offboard', state: 'cancelled' });
    expect((await json('offboard stays --grace 0 --yes --wait')).tenant.status).toBe('offboarded');
  });

  it('writes a tenant to files, and takes them into another one when that is said', async () => {
    const to = join(folder, 'taken-out');
    const written = await json(`export acme --to ${to}`);
    const items = written.result.tables.find(({ table }: { table: string }) => table === 'items').rows;
    expect([written.state, items > 0]).toEqual(['done', true]);
    await json('create taker --tier pro --wait');
    const from = written.result.url;
    const refused = await tenants(`import taker --from ${from}`);
    expect([refused.code, refused.stderr]).toEqual([3, expect.stringContaining('--other-tenant')]);
    const taken = await json(`import taker --from ${from} --other-tenant`);
    expect([taken.state, taken.result.rows.items]).toEqual(['done', items]);
    const left = await json('offboard taker --grace 0 --yes --wait');
    expect(readFileSync(new URL(`${left.operation.result.url}/manifest.json`), 'utf8')).toContain('"taker"');
    expect((await tenants('export acme --to ftp://elsewhere/folder')).code).toBe(3);
  });

  it('shows tables to people and the way to those that wait', async () => {
    const waited = await tenants('create waited --tier pro --wait');
    expect(waited.stdout).toMatch(/status +│ active/);
    expect(waited.stderr).toMatch(/^\w+, \d+ s( of about \d+ s)?$/m);
    const { stdout } = await tenants('list');
    expect(stdout).toMatch(/│ acme +│ starter +│ rls +│ active/);
    expect((await tenants('operations')).stdout).toMatch(/│ provision │ waited +│ done/);
    expect((await tenants('create later --tier pro')).stderr).toContain('operations --watch');
  });

  it.each([
    ['an unknown tier', 'create fine --tier gold', 2, 'Allowed choices are starter, pro, enterprise'],
    ['no tier', 'create fine', 2, "required option '--tier <tier>'"],
    ['an unknown command', 'destroy acme', 2, "unknown command 'destroy'"],
    ['an offboarding that nobody has confirmed', 'offboard acme', 2, '--yes'],
    ['a grace period without a unit', 'offboard acme --grace 7', 2, '30m, 12h, 7d'],
    ['a slug in use', 'create acme --tier starter', 3, 'There is a tenant acme already'],
    ['a slug that can’t be', 'create tenants --tier starter', 3, 'this word is reserved'],
    ['an unknown tenant', 'show nobody', 3, 'There is no such tenant'],
    ['a scope that no tool asks for', 'keys create acme --scopes all', 3, 'inventory:read'],
  ])('refuses %s', async (_, args, code, text) => {
    const ran = await tenants(args);
    expect([ran.code, ran.stdout]).toEqual([code, '']);
    expect(ran.stderr).toContain(text);
  });

  it('says nothing when its reader has read enough', async () => {
    const child = spawn(process.execPath, ['functions/admin/cli/main.ts', 'list'], {
      cwd: root,
      env: { ...process.env, TENANTRY_STATE: folder, PORT: String(port) },
    });
    child.stdout.destroy();
    const stderr = text(child.stderr);
    const code = await new Promise((resolve) => child.once('exit', resolve));
    expect([code, await stderr]).toEqual([0, '']);
  });

  it('hears of the end, though the admin API can’t answer meanwhile', async () => {
    const { url, ...rest } = JSON.parse(readFileSync(join(folder, 'admin.json'), 'utf8'));
    const refusal = '{"error":{"code":"unavailable","message":"A database can’t be reached."}}';
    const unanswered = { '/operations/': 2, '/tenants/patient': 1 };
    const api = createServer(async (request, response) => {
      const path = (['/operations/', '/tenants/patient'] as const).find((part) =>
        request.url!.startsWith(part),
      );
      if (path !== undefined && unanswered[path]-- > 0) return response.writeHead(503).end(refusal);
      const { method, headers } = request;
      const sent = method === 'POST' ? { body: await text(request) } : {};
      const forwarded = { authorization: headers.authorization!, 'content-type': 'application/json' };
      const answer = await fetch(url + request.url, { method: method!, headers: forwarded, ...sent });
      return response.writeHead(answer.status).end(await answer.text());
    });
    const away = await mkdtemp(join(tmpdir(), 'tenantry-away-'));
    await new Promise<void>((resolve) => api.listen(0, '127.0.0.1', resolve));
    try {
      const { port: there } = api.address() as AddressInfo;
      await writeFile(
        join(away, 'admin.json'),
        JSON.stringify({ ...rest, url: `http://127.0.0.1:${there}` }),
      );
      const ran = await tenants('create patient --tier pro --wait --json', { TENANTRY_STATE: away });
      expect([ran.code, JSON.parse(ran.stdout).tenant.status], ran.stderr).toEqual([0, 'active']);
      expect(Object.values(unanswered).every((left) => left < 0)).toBe(true);
    } finally {
      api.close();
      await rm(away, { recursive: true });
    }
  });

  it('says what to do when there is nothing to reach', async () => {
    for (const environment of [
      { TENANTRY_STATE: join(folder, 'nowhere') },
      { PORT: '1' },
      {
        TENANTRY_ADMIN_URL: 'http://127.0.0.1:1',
        AWS_REGION: 'eu-west-1',
        AWS_ACCESS_KEY_ID: 'a',
        AWS_SECRET_ACCESS_KEY: 'b',
      },
    ]) {
      const ran = await tenants('list --json', environment as unknown as Record<string, string>);
      expect([ran.code, JSON.parse(ran.stderr).error.code]).toEqual([4, 'not_reachable']);
    }
  });
});

describe('the local admin API', () => {
  const file = () => JSON.parse(readFileSync(join(folder, 'admin.json'), 'utf8'));

  it('is for those who can read its file, which is its owner', async () => {
    expect(statSync(join(folder, 'admin.json')).mode & 0o777).toBe(0o600);
    const { url, token } = file();
    expect(new URL(url).hostname).toBe('127.0.0.1');
    const status = async (headers: Record<string, string>) =>
      (await fetch(`${url}/tenants`, { headers })).status;
    const authorization = `Bearer ${token}`;
    expect(await status({ authorization })).toBe(200);
    expect(await status({})).toBe(403);
    expect(await status({ authorization: `Bearer ${token.slice(1)}A` })).toBe(403);
    expect(await status({ authorization, origin: url })).toBe(403);
  });

  it('is not reached through the endpoint', async () => {
    const { token } = file();
    const headers = { authorization: `Bearer ${token}` };
    expect((await fetch(`http://127.0.0.1:${port}/tenants`, { headers })).status).toBe(404);
  });
});
