import { createServer, type IncomingMessage } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { APIGatewayRequestAuthorizerEvent } from 'aws-lambda';
import { z } from 'zod';
import { createAuthorizer } from '../../functions/lib/auth/authorize.ts';
import type { Principal } from '../../functions/lib/auth/principal.ts';
import { createTokenVerifier, type TokenVerifierOptions } from '../../functions/lib/auth/verify-token.ts';
import type { OpenedCall } from '../../functions/lib/mcp/call.ts';
import { createEndpoint } from '../../functions/lib/mcp/endpoint.ts';
import { defineTool, type Tool } from '../../functions/lib/mcp/tool.ts';
import { tenantId } from '../../functions/lib/tenant/tenant.ts';
import {
  gatewayResponses,
  metadataHeaders,
  protectedResourceMetadata,
  routes,
} from '../../infra/endpoint.ts';

/** Answers who the token says is calling, and needs no database. */
const whoAmI = (name: string, scopes: string[]): Tool =>
  defineTool({
    name,
    title: name,
    description: 'Who is calling',
    input: z.object({}),
    output: z.object({ tenant: z.string(), principal: z.string() }),
    scopes,
    annotations: { readOnlyHint: true },
    run: async (_input, { tenant, principal }) => ({ tenant: tenant.slug, principal }),
  }) as unknown as Tool;

const tools = [
  whoAmI('who_reads', ['inventory:read']),
  whoAmI('who_writes', ['inventory:read', 'inventory:write']),
];

/**
 * The parts that a login meets (gateway answers, authorizer, endpoint), without databases behind them. `tenants` maps a
 * tenant claim to its slug, as the catalog does.
 */
export async function startLoopbackGateway(tenants: Record<string, string>) {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const publicUrl = `http://127.0.0.1:${(server.address() as AddressInfo).port}/mcp`;

  return {
    publicUrl,
    serve(issuers: TokenVerifierOptions['issuers']) {
      const scopes = ['inventory:read', 'inventory:write'];
      const facts = { publicUrl, issuers: issuers.map(({ issuer }) => issuer), scopes };
      const authorize = createAuthorizer({
        verify: createTokenVerifier({
          issuers,
          apiKeyJwks: { keys: [] },
          apiKeyIssuer: 'keys',
          audience: publicUrl,
        }),
        resource: publicUrl,
        toolScopes: Object.fromEntries(tools.map((tool) => [tool.name, tool.scopes])),
        onRefusal: () => {},
      });
      const endpoint = createEndpoint({
        tools,
        info: { name: 'test', title: 'Test', version: '1.0.0' },
        publicUrl,
        allowedOrigins: [],
        admit: async ({ tenant }) => ({
          id: tenantId(tenant),
          slug: tenants[tenant]!,
          strategy: 'rls',
          epoch: 1,
          open: async () => ({ db: { stats: () => ({ rows: 0 }) } }) as unknown as OpenedCall,
        }),
        log: () => {},
      });

      async function answer(message: IncomingMessage): Promise<Response> {
        const route = routes.find(({ method, path }) => method === message.method && path === message.url);
        if (route?.target === 'metadata')
          return Response.json(protectedResourceMetadata(facts), { headers: metadataHeaders });
        if (route?.target !== 'mcp') return new Response(null, { status: 404 });
        const refused = (type: 'UNAUTHORIZED' | 'ACCESS_DENIED', context: object = {}) => {
          const { status, headers } = gatewayResponses(facts)[type]!;
          const challenge = headers['WWW-Authenticate']!;
          const value = challenge.startsWith("'")
            ? challenge.slice(1, -1)
            : (context as Record<string, string>).challenge!;
          return new Response(null, { status: status ?? 500, headers: { 'WWW-Authenticate': value } });
        };
        if (!message.headers.authorization) return refused('UNAUTHORIZED');
        const event = {
          methodArn: 'arn:aws:execute-api:local:0:local/local/POST/mcp',
          headers: message.headers,
        };
        const decision = await authorize(event as unknown as APIGatewayRequestAuthorizerEvent).catch(
          () => undefined,
        );
        if (!decision) return refused('UNAUTHORIZED');
        const context = decision.context as unknown as Principal;
        if (decision.policyDocument.Statement[0]!.Effect === 'Deny') return refused('ACCESS_DENIED', context);
        const chunks = await message.toArray();
        const request = new Request(publicUrl, {
          method: message.method!,
          headers: message.headers as Record<string, string>,
          ...(message.method === 'POST' && { body: Buffer.concat(chunks) }),
        });
        return endpoint(request, context, Date.now() + 10_000);
      }

      server.on('request', async (message, response) => {
        const answered = await answer(message);
        response.writeHead(answered.status, Object.fromEntries(answered.headers));
        response.end(Buffer.from(await answered.arrayBuffer()));
      });
    },
    close: () =>
      new Promise<void>((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}
