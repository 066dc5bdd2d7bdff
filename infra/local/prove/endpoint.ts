import { decodeJwt } from 'jose';
import type { Target } from './prove.ts';
import type { RunningSystem } from './running.ts';
import { badTokens } from './tokens.ts';

/** What was tried at the public endpoint, and what came of it. */
export interface EndpointFinding {
  readonly theme: 'Tokens' | 'Naming the other tenant';
  readonly attack: string;
  readonly attacker: string;
  readonly victim: string;
  readonly outcome: 'held' | 'leaked';
  readonly what?: string;
}

interface Tool {
  readonly name: string;
  readonly inputSchema: { properties?: Record<string, { type?: string; format?: string; enum?: unknown[] }> };
}

interface Answer {
  readonly status: number;
  readonly text: string;
}

/** Every tenant that has a token here against every other, over HTTP alone. */
export async function attackEndpoint(
  system: RunningSystem,
  targets: readonly Target[],
): Promise<EndpointFinding[]> {
  const findings: EndpointFinding[] = [];
  for (const [attacker, token] of system.tokens)
    for (const target of targets.filter(
      ({ party }) => party.name !== attacker && system.tokens.has(party.name),
    ))
      findings.push(
        ...(await withBadTokens(system, attacker, token, target)),
        ...(await withOwnToken(system, attacker, token, target)),
      );
  return findings;
}

async function withBadTokens(
  { url, tokens, signing }: RunningSystem,
  attacker: string,
  token: string,
  { party }: Target,
): Promise<EndpointFinding[]> {
  const keyId = decodeJwt(tokens.get(party.name)!.slice(4)).jti!;
  const bad = await badTokens(token, { tenant: party.tenant, keyId }, signing);
  return Promise.all(
    bad.map(async ({ name, token }) => {
      const { status } = await post(url, token, call('tools/list', {}));
      const held = status === 401 || status === 403;
      return {
        theme: 'Tokens',
        attack: name,
        attacker,
        victim: party.name,
        outcome: held ? 'held' : 'leaked',
        ...(!held && { what: `the answer was ${status}` }),
      } as const;
    }),
  );
}

async function withOwnToken(
  { url, tokens }: RunningSystem,
  attacker: string,
  token: string,
  { party, sample }: Target,
): Promise<EndpointFinding[]> {
  const listed = await post(url, token, call('tools/list', {}));
  const tools = JSON.parse(messageOf(listed.text)).result.tools as Tool[];
  const uuids = sample.markers.filter((marker) => /^[0-9a-f-]{36}$/.test(marker)).slice(0, 5);
  // Where keys are numbers, which everybody has: the tenant is named all the same.
  const ids = uuids.length > 0 ? uuids : [party.tenant];
  const findings: EndpointFinding[] = [];
  const judge = (attack: string, sent: string, { text }: Answer) => {
    const marker = sample.markers.find((marker) => text.includes(marker) && !sent.includes(marker));
    findings.push({
      theme: 'Naming the other tenant',
      attack,
      attacker,
      victim: party.name,
      outcome: marker === undefined ? 'held' : 'leaked',
      ...(marker !== undefined && { what: `it saw a value of ${party.name}: ${marker.slice(0, 40)}` }),
    });
  };
  const naming = { 'x-tenant': party.name, 'x-tenant-id': party.tenant, 'x-amz-tenant-id': party.tenant };
  for (const tool of tools)
    for (const id of ids) {
      const own = argumentsFor(tool, id);
      const wanted = { ...own, tenant: party.name, tenant_id: party.tenant, tenantId: party.tenant };
      const attempts: [string, object, Record<string, string>, string][] = [
        [`${tool.name}: the other tenant's ids`, own, {}, ''],
        [`${tool.name}: the other tenant in its arguments`, wanted, {}, ''],
        [`${tool.name}: the other tenant in headers`, own, naming, ''],
        [
          `${tool.name}: the other tenant in the query`,
          own,
          {},
          `?tenant=${party.name}&tenant_id=${party.tenant}`,
        ],
      ];
      for (const [name, args, headers, query] of attempts) {
        const body = call('tools/call', { name: tool.name, arguments: args });
        judge(name, body, await post(url + query, token, body, headers));
      }
      const theirs = await post(
        url,
        tokens.get(party.name)!,
        call('tools/call', { name: tool.name, arguments: { ...own, limit: 1 } }),
      );
      const cursor = /\\?"(?:nextC|next_c|c)ursor\\?":\s*\\?"([^"\\]+)/.exec(theirs.text)?.[1];
      if (cursor === undefined) continue;
      const body = call('tools/call', { name: tool.name, arguments: { ...own, cursor } });
      judge(`${tool.name}: the other tenant's cursor`, body, await post(url, token, body));
    }
  return findings;
}

/** Something of the right kind for every argument, the victim's id wherever one fits. */
function argumentsFor({ inputSchema }: Tool, id: string): Record<string, unknown> {
  const entries = Object.entries(inputSchema.properties ?? {}).filter(([name]) => name !== 'cursor');
  return Object.fromEntries(
    entries.map(([name, { type, format, enum: choices }]) => {
      if (choices) return [name, choices[0]];
      if (type === 'integer' || type === 'number') return [name, 1];
      if (type === 'boolean') return [name, true];
      return [name, format === 'uuid' || /id$|key$|sku/i.test(name) ? id : 'a'];
    }),
  );
}

const call = (method: string, params: object) => JSON.stringify({ jsonrpc: '2.0', id: 1, method, params });

async function post(
  url: string,
  token: string,
  body: string,
  headers: Record<string, string> = {},
): Promise<Answer> {
  const response = await fetch(url, {
    method: 'POST',
    headers: {
      'content-type': 'application/json',
      accept: 'application/json, text/event-stream',
      'mcp-protocol-version': '2025-11-25',
      ...(token !== '' && { authorization: `Bearer ${token}` }),
      ...headers,
    },
    body,
  });
  return { status: response.status, text: await response.text() };
}

/** The JSON of an answer, or of the last event of a stream. */
const messageOf = (text: string) => /^data: (.*)$/m.exec(text)?.[1] ?? text;
