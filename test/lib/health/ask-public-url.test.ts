import { randomUUID } from 'node:crypto';
import { createServer, type RequestListener } from 'node:http';
import type { AddressInfo } from 'node:net';
import { describe, expect, it } from 'vitest';
import { askPublicUrl, type CanaryKey } from '../../../functions/lib/health/public-url.ts';
import { createExchange } from '../../../functions/lib/mcp/exchange.ts';
import { probeTool } from '../../../functions/lib/mcp/probe.ts';
import { createRegistry } from '../../../functions/lib/mcp/registry.ts';
import { defineTool } from '../../../functions/lib/mcp/tool.ts';

const key: CanaryKey = {
  slug: 'canary-rls-a',
  strategy: 'rls',
  tenant: randomUUID(),
  keyId: randomUUID(),
  url: 'http://127.0.0.1/mcp',
  expiresAt: new Date().toISOString(),
  token: `tnt_${'h'.repeat(20)}.${'c'.repeat(40)}.${'s'.repeat(86)}`,
};

describe('asking it', () => {
  /** A server that answers as it is told; what it was asked. */
  async function serving(listener: RequestListener, work: (url: string) => Promise<void>) {
    const server = createServer(listener);
    await new Promise<void>((ready) => server.listen(0, '127.0.0.1', ready));
    try {
      await work(`http://127.0.0.1:${(server.address() as AddressInfo).port}/mcp`);
    } finally {
      server.closeAllConnections();
      server.close();
    }
  }

  it('tries once more what fails for a moment', async () => {
    let asked = 0;
    const listener: RequestListener = (_, response) => {
      asked += 1;
      const headers = { 'www-authenticate': 'Bearer resource_metadata="x"' };
      response.writeHead(asked === 1 ? 503 : 401, headers).end('{}');
    };
    await serving(listener, async (url) => {
      expect(await askPublicUrl(url, [])).toEqual({ asked: [], faults: [] });
      expect(asked).toBe(2);
    });
  });

  it('reads no more of an answer than an answer of ours can be, and takes a key nowhere else', async () => {
    const elsewhere: string[] = [];
    const listener: RequestListener = (request, response) => {
      if (request.url === '/elsewhere') elsewhere.push(request.headers.authorization ?? '');
      else if (request.headers.authorization) response.writeHead(307, { location: '/elsewhere' });
      else response.writeHead(401, { 'www-authenticate': 'Bearer resource_metadata="x"' });
      const more = () => {
        while (!response.destroyed && response.write('x'.repeat(16_384)));
        if (!response.destroyed) response.once('drain', more);
      };
      request.headers.authorization ? response.end() : more();
    };
    await serving(listener, async (url) => {
      const { faults } = await askPublicUrl(url, [key]);
      expect(faults.map(({ check }) => check)).toEqual(['public_url', 'public_url']);
      expect(elsewhere).toEqual([]);
    });
  });
});

describe('the probe', () => {
  const call = async (auth: string, scopes: string) => {
    const caller = {
      principal: { tenant: 'x', principal: 'x', scopes, auth },
      granted: new Set(scopes.split(' ')),
      signal: new AbortController().signal,
      deadline: Date.now() + 10_000,
      tenant: { schemaVersion: null },
    };
    const exchange = createExchange(
      createRegistry([], [probeTool]),
      'legacy',
      caller as never,
      () => {},
      () => ({}) as never,
    );
    const { _meta } = await exchange.call({ name: 'tenancy_probe', arguments: {} });
    return (_meta as Record<string, string>)['tenantry/code'];
  };

  it('is there for a canary’s key and for nobody else', async () => {
    expect(await call('key:1', 'tenancy:probe')).toBe('bad_arguments');
    for (const [auth, scopes] of [
      ['key:1', 'inventory:read'],
      ['oidc:https://login.example.com/', 'tenancy:probe'],
      ['oidc:https://login.example.com/', ''],
    ] as const)
      expect(await call(auth, scopes)).toBe('unknown_tool');
  });

  it('has a scope that no tool of a team may ask for', () => {
    const tool = defineTool({ ...probeTool, name: 'mine', scopes: ['tenancy:probe'] } as never);
    expect(() => createRegistry([tool])).toThrow(/product's own/);
  });
});
