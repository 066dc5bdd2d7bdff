import { expect, it, vi } from 'vitest';
import { probeTool } from '../../functions/lib/mcp/probe.ts';
import { Refused } from '../../infra/local/refused.ts';
import { refusedCloud } from '../support/refused-cloud.ts';

/** As an adopting team's could be: the types find nothing wrong with it. */
const tools = [probeTool];
vi.mock('../../functions/mcp/tools/index.ts', () => ({ tools }));

/** What the MCP function refuses when it starts: every call of every tenant would fail. */
const message = 'Two tools are named "tenancy_probe": rename one.';

it('a tool that the function would refuse is not deployed', async () => {
  await expect(import('../../infra/app.ts')).rejects.toThrow(message);
});

it('nor started on one machine', async () => {
  await expect(refusedCloud(tools)).rejects.toThrow(new Refused(message));
});
