import { z } from 'zod';
import { tenantId } from '../tenant/tenant.ts';
import { createEndpoint } from './endpoint.ts';
import { defineTool } from './tool.ts';

/**
 * Serves two requests to nobody, so that in an environment that is made ahead the first real one finds everything loaded
 * and compiled (20-50 ms). They go through an endpoint of its own, which knows no tenant and no database, in the older
 * protocol family: even clients that know both begin with it. The other is loaded (50 ms) when a client first speaks it.
 */
export async function warmUp(): Promise<void> {
  const endpoint = createEndpoint({
    tools: [probe],
    info: { name: 'warm-up', title: 'Warm-up', version: '0' },
    publicUrl: 'https://endpoint.invalid/mcp',
    allowedOrigins: [],
    log: () => {},
    admit: async () => ({
      id: tenantId('00000000-0000-0000-0000-000000000000'),
      slug: 'nobody',
      strategy: 'rls',
      epoch: 0,
      schemaVersion: null,
      open: async () => ({ db, cursor }),
    }),
  });
  for (const request of [requestOf('tools/list', {}), requestOf('tools/call', { name: probe.name })]) {
    const response = await endpoint(request, nobody, Date.now() + 1_000);
    await response.arrayBuffer();
  }
}

const probe = defineTool({
  name: 'probe',
  title: 'Probe',
  description: 'Answers.',
  input: z.object({}),
  output: z.object({ ready: z.boolean() }),
  scopes: [],
  annotations: { readOnlyHint: true },
  run: async () => ({ ready: true }),
});

const nobody = { tenant: 'nobody', principal: 'nobody', scopes: '', auth: 'none' };

const unused = () => {
  throw new TypeError('The warm-up reaches no database.');
};
const db = { query: unused, connect: unused, transaction: unused, stats: () => ({ rows: 0 }) };
const cursor = { seal: unused, open: unused };

function requestOf(method: string, params: object): Request {
  return new Request('https://endpoint.invalid/mcp', {
    method: 'POST',
    headers: { 'content-type': 'application/json', accept: 'application/json, text/event-stream' },
    body: JSON.stringify({ jsonrpc: '2.0', id: 1, method, params }),
  });
}
