import { Logger } from '@aws-lambda-powertools/logger';
import type { APIGatewayProxyEvent } from 'aws-lambda';
import manifest from '../../package.json' with { type: 'json' };
import type { Principal } from '../lib/auth/principal.ts';
import { createPoolTeller } from '../lib/health/pool-teller.ts';
import { createAccess } from '../lib/isolation/access.ts';
import type { AdmittedTenant, Log } from '../lib/mcp/call.ts';
import { createCursors } from '../lib/mcp/cursor.ts';
import { createEndpoint } from '../lib/mcp/endpoint.ts';
import { createHandler } from '../lib/mcp/lambda-adapter.ts';
import { warmUp } from '../lib/mcp/warm-up.ts';
import { readMcpSettings } from '../lib/settings.ts';
import { tools } from './tools/index.ts';

/** One statement's: what a model can make use of, and far below the function's memory. */
const resultBounds = { maxRows: 1_000, maxBytes: 1024 * 1024 };

const settings = readMcpSettings();
const logger = new Logger({ serviceName: 'mcp' });
const log: Log = (level, message, fields) => logger[level](message, fields);
const access = createAccess({ settings });

async function admit(principal: Principal): Promise<AdmittedTenant> {
  const route = await access.resolve(principal);
  const { tenant, slug, strategy, epoch, schemaVersion } = route;
  return {
    id: tenant,
    slug,
    strategy,
    epoch,
    schemaVersion,
    async open(tool, limits) {
      const { current, keys } = await access.masterKeys();
      const others = [...keys].filter(([id]) => id !== current);
      const cursors = createCursors([keys.get(current)!, ...others.map(([, key]) => key)]);
      return {
        db: access.database(principal, route, {
          ...limits,
          ...resultBounds,
          roundTrips: settings.roundTrips,
        }),
        cursor: cursors({ tenant, auth: principal.auth, principal: principal.principal, tool }),
      };
    },
  };
}

const endpoint = createEndpoint({
  tools,
  info: { name: 'tenantry', title: 'Tenantry', version: manifest.version },
  publicUrl: settings.publicUrl,
  allowedOrigins: settings.allowedOrigins,
  admit,
  log,
});

// Otherwise a call is waiting, for what it needs itself and for nothing more.
if (settings.isMadeAhead) await warmUp();

const serve = createHandler(endpoint, log);
const tellPools = createPoolTeller(access.pools);

export const handler = awslambda.streamifyResponse<APIGatewayProxyEvent, void>(
  async (event, stream, context) => {
    await serve(event, stream, context);
    await tellPools();
  },
);
