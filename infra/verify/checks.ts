import { messageOf } from '../../functions/lib/health/public-url.ts';

/** What only a deployment can show, as questions to one that runs. Each changes nothing but the tenant's call counters. */
export interface Target {
  /** The endpoint's URL, as agents are given it. */
  readonly url: string;
  /** An API key, or another access token, of any tenant; without it what only a tenant is answered is left out. */
  readonly key?: string | undefined;
  /** One that lacks a scope that some tool needs; without it that check is left out. */
  readonly narrowKey?: string | undefined;
  readonly fetch: typeof fetch;
  /** The highest value of a metric of RDS Proxy since a time; undefined: the deployment's proxy was not named. */
  readonly proxyMaximum?: ((metric: string, since: Date) => Promise<number>) | undefined;
  /** Calls of the check that hurries: enough for the proxy to hand connections around. */
  readonly calls?: number;
}

/** What was asked for is not so; the message says what was seen instead. */
class DoesNotHold extends Error {}
/** It can't be asked with what was given; the message says what is missing. */
export class LeftOut extends Error {}

export interface Check {
  readonly name: string;
  /** What to do when it does not hold. */
  readonly remedy: string;
  /** @returns what was seen. @throws DoesNotHold, LeftOut */
  run(target: Target): Promise<string>;
}

interface Tool {
  readonly name: string;
  readonly inputSchema: { readonly required?: readonly string[] };
  readonly annotations?: { readonly readOnlyHint?: boolean };
}

export const checks: readonly Check[] = [
  {
    name: 'a call without a token is told where to log in',
    remedy: 'Look at the gateway response UNAUTHORIZED: a client finds the login by its header alone.',
    async run(target) {
      const { status, headers } = await post(target, undefined, 'tools/list');
      const challenge = headers.get('www-authenticate') ?? 'no WWW-Authenticate';
      expect(status === 401 && challenge.includes('resource_metadata="'), `${status}, ${challenge}`);
      return '401 with the challenge';
    },
  },
  {
    name: 'the metadata that it points to can be read',
    remedy: 'The path of RFC 9728 must be served below the same name: look at the base path mapping.',
    async run(target) {
      const { headers } = await post(target, undefined, 'tools/list');
      const [, address] = /resource_metadata="([^"]+)"/.exec(headers.get('www-authenticate') ?? '') ?? [];
      if (address === undefined) throw new DoesNotHold('there is no address');
      const answer = await target.fetch(address);
      const { resource } = (await answer.json()) as { resource?: string };
      expect(resource === target.url, `resource ${resource}`);
      return address;
    },
  },
  {
    name: 'a false token is refused in the same words',
    remedy: 'Look at the authorizer’s log: it must answer Unauthorized, not fail.',
    async run(target) {
      const { status, headers } = await post(target, `${target.key ?? 'tnt_'}x`, 'tools/list');
      expect(status === 401 && headers.has('www-authenticate'), `${status}`);
      return '401 with the challenge';
    },
  },
  {
    name: 'a call with a key is answered: IAM logins work, at the proxy and at the server',
    remedy: 'Look at the MCP function’s log; a refused login names the role’s policy or the login.',
    async run(target) {
      const tools = await listTools(target);
      expect(tools.length > 0, 'no tools');
      return `${tools.length} tools`;
    },
  },
  {
    name: 'a missing scope is answered 403, with the scope to ask for',
    remedy: 'Look at the gateway response ACCESS_DENIED: its header comes from the authorizer’s context.',
    async run(target) {
      if (target.narrowKey === undefined) throw new LeftOut('set VERIFY_NARROW_KEY');
      const [wide, narrow] = await Promise.all([
        listTools(target),
        listTools({ ...target, key: target.narrowKey }),
      ]);
      const beyond = wide.find(({ name }) => !narrow.some((tool) => tool.name === name));
      if (beyond === undefined) throw new LeftOut('the narrow key has every scope');
      const { status, headers } = await post(
        target,
        target.narrowKey,
        'tools/call',
        { name: beyond.name, arguments: {} },
        { 'mcp-protocol-version': '2026-07-28', 'mcp-method': 'tools/call', 'mcp-name': beyond.name },
      );
      const challenge = headers.get('www-authenticate') ?? 'no WWW-Authenticate';
      expect(status === 403 && challenge.includes('insufficient_scope'), `${status}, ${challenge}`);
      return '403 with the scope';
    },
  },
  {
    name: 'the statements of one Sync stay on one connection',
    remedy: 'Set `roundTrips` to `four` (cdk.json) and deploy the endpoint: statements then go one by one.',
    async run(target) {
      const tool = await harmlessTool(target);
      const answers = await hurry(target.calls ?? 200, 20, () =>
        post(target, target.key, 'tools/call', { name: tool, arguments: {} }),
      );
      const bad = answers.filter(({ status, text }) => status !== 200 || /"isError":\s*true/.test(text));
      expect(bad.length === 0, `${bad.length} of ${answers.length} failed: ${bad[0]?.text.slice(0, 200)}`);
      return `${answers.length} calls of ${tool}, 20 at once`;
    },
  },
  {
    name: 'no call pins its connection of the proxy',
    remedy: 'The proxy’s log names the statement that pinned; RUNBOOK.md, sessions pinned.',
    async run(target) {
      if (target.proxyMaximum === undefined) throw new LeftOut('set VERIFY_PROXY');
      const since = new Date();
      const tool = await harmlessTool(target);
      await hurry(target.calls ?? 200, 20, () =>
        post(target, target.key, 'tools/call', { name: tool, arguments: {} }),
      );
      const pinned = await target.proxyMaximum('DatabaseConnectionsCurrentlySessionPinned', since);
      expect(pinned === 0, `${pinned} connections were pinned`);
      return 'none pinned';
    },
  },
  {
    name: 'GET /health says ok',
    remedy: 'Run `npm run tenants -- health`, which names what is wrong.',
    async run(target) {
      const answer = await target.fetch(target.url.replace(/\/mcp$/, '/health'));
      const { status } = (await answer.json()) as { status?: string };
      expect(answer.status === 200 && status === 'ok', `${answer.status}, ${status}`);
      return 'ok';
    },
  },
];

function expect(holds: boolean, saw: string): void {
  if (!holds) throw new DoesNotHold(saw);
}

async function post(
  { url, fetch }: Target,
  token: string | undefined,
  method: string,
  params: object = {},
  headers: Record<string, string> = {},
): Promise<{ status: number; headers: Headers; text: string }> {
  const answer = await fetch(url, {
    method: 'POST',
    headers: {
      'content-type': 'application/json',
      accept: 'application/json, text/event-stream',
      'mcp-protocol-version': '2025-11-25',
      ...(token !== undefined && { authorization: `Bearer ${token}` }),
      ...headers,
    },
    body: JSON.stringify({ jsonrpc: '2.0', id: 1, method, params }),
  });
  return { status: answer.status, headers: answer.headers, text: await answer.text() };
}

async function listTools(target: Target): Promise<readonly Tool[]> {
  if (target.key === undefined) throw new LeftOut('set VERIFY_KEY');
  const { status, text } = await post(target, target.key, 'tools/list');
  if (status !== 200) throw new DoesNotHold(`${status}, ${text.slice(0, 200)}`);
  return JSON.parse(messageOf(text)).result?.tools ?? [];
}

/** One that reads, and needs no arguments. */
async function harmlessTool(target: Target): Promise<string> {
  const found = (await listTools(target)).find(
    ({ inputSchema, annotations }) => !inputSchema.required?.length && annotations?.readOnlyHint,
  );
  if (found === undefined) throw new LeftOut('the key has no reading tool that takes no arguments');
  return found.name;
}

async function hurry<T>(times: number, atOnce: number, work: () => Promise<T>): Promise<T[]> {
  const done: T[] = [];
  let begun = 0;
  const worker = async () => {
    while (begun++ < times) done.push(await work());
  };
  await Promise.all(Array.from({ length: atOnce }, worker));
  return done;
}
