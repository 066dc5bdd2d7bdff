import { z } from 'zod';
import type { OpenedCall } from '../../../functions/lib/mcp/call.ts';
import { createEndpoint } from '../../../functions/lib/mcp/endpoint.ts';
import { createHandler } from '../../../functions/lib/mcp/lambda-adapter.ts';
import { defineTool, type Tool } from '../../../functions/lib/mcp/tool.ts';
import { tenantId } from '../../../functions/lib/tenant/tenant.ts';

/** The MCP function with tools that answer who the token says is calling, and need no database. */
const whoAmI = (name: string, scopes: string[]) =>
  defineTool({
    name,
    title: name,
    description: 'Who is calling',
    input: z.object({}),
    output: z.object({ tenant: z.string(), principal: z.string() }),
    scopes,
    annotations: { readOnlyHint: true },
    run: async (_input, { tenant, principal }) => ({ tenant: tenant.id, principal }),
  }) as unknown as Tool;

const endpoint = createEndpoint({
  tools: [
    whoAmI('who_reads', ['inventory:read']),
    whoAmI('who_writes', ['inventory:read', 'inventory:write']),
  ],
  info: { name: 'test', title: 'Test', version: '1.0.0' },
  publicUrl: process.env.PUBLIC_URL!,
  allowedOrigins: [],
  admit: async ({ tenant }) => ({
    id: tenantId(tenant),
    slug: 'some-tenant',
    strategy: 'rls',
    epoch: 1,
    schemaVersion: null,
    open: async () => ({ db: { stats: () => ({ rows: 0 }) } }) as unknown as OpenedCall,
  }),
  log: () => {},
});

export const handler = awslambda.streamifyResponse(createHandler(endpoint, () => {}));
