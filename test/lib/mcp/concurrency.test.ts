import { expect, test } from 'vitest';
import { acme, call, globex, legacyPost, modernPost, principalFor, soon, testEndpoint } from './support.ts';

test('interleaved requests of two tenants never get each other’s answers', async () => {
  const { endpoint, lines } = testEndpoint();
  const requests = Array.from({ length: 100 }, async (_, index) => {
    const tenant = index % 2 ? acme : globex;
    // Later ones finish first, and both tenants use the same request ids.
    const args = { text: `${tenant} ${index}`, waitMs: (100 - index) % 17 };
    const request =
      index % 4 < 2
        ? legacyPost(call('whoami', args, Math.floor(index / 2)))
        : modernPost('tools/call', { name: 'whoami', arguments: args });
    const response = await endpoint(request, principalFor(tenant), soon(), `request ${index}`);
    return { tenant, index, body: (await response.json()) as { result: { structuredContent: object } } };
  });
  for (const { tenant, index, body } of await Promise.all(requests)) {
    expect(body.result.structuredContent).toEqual({
      tenant,
      principal: `agent of ${tenant}`,
      text: `${tenant} ${index}`,
    });
  }
  expect(lines).toHaveLength(100);
  for (const { fields } of lines) {
    const index = Number((fields.requestId as string).slice('request '.length));
    expect(fields).toMatchObject({ tenant: index % 2 ? acme : globex, tool: 'whoami', outcome: 'ok' });
  }
});
