import type { Tool } from '../../functions/lib/mcp/tool.ts';
import { startCloud } from '../../infra/local/cloud.ts';

/** A start of the local cloud that is refused before it touches a file: nothing is where it would be. */
export const refusedCloud = (tools: readonly Tool[]) =>
  startCloud(
    {
      port: 1,
      folder: '/nowhere',
      fresh: false,
      clockFactor: 1,
      extensions: [],
      allowedOrigins: [],
    },
    '/nowhere',
    tools,
    () => {},
    () => {},
  );
