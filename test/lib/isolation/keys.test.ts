import { expect, it } from 'vitest';
import type { Secrets } from '../../../functions/lib/aws/secrets.ts';
import { createAccess } from '../../../functions/lib/isolation/access.ts';
import { createCursors } from '../../../functions/lib/mcp/cursor.ts';
import { readMcpSettings } from '../../../functions/lib/settings.ts';

const settings = readMcpSettings({
  PUBLIC_URL: 'https://mcp.example.com/mcp',
  CATALOG_HOST: '127.0.0.1',
  AWS_REGION: 'eu-west-1',
});
const [k1, k2] = [1, 2].map((byte) => Buffer.alloc(32, byte).toString('base64')) as [string, string];
const mine = { tenant: 'acme', auth: 'oidc:a', principal: 'ann', tool: 'stock_history' };

it('an environment that no call was refused in knows another key after five minutes, and opens its cursors', async () => {
  let now = 0;
  let secret = { current: 'k1', keys: { k1 } as Record<string, string> };
  const secrets = { read: async () => JSON.stringify(secret) } as unknown as Secrets;
  const environment = () => {
    const access = createAccess({ settings, secrets, clock: () => now });
    return async () => {
      const { current, keys } = await access.masterKeys();
      const others = [...keys].filter(([id]) => id !== current).map(([, key]) => key);
      return createCursors([keys.get(current)!, ...others])(mine);
    };
  };
  const old = environment();
  await old();
  // The steps of DEPLOYING.md, each with its wait.
  secret = { current: 'k1', keys: { k1, k2 } };
  now += 5 * 60_000;
  await old();
  secret = { current: 'k2', keys: { k1, k2 } };
  const sealed = (await environment()()).seal('row 7');
  expect((await old()).open(sealed)).toBe('row 7');
});
