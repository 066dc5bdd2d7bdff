import { execFile } from 'node:child_process';
import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type Gateway, startGateway } from './gateway.ts';

const suite = dirname(
  createRequire(import.meta.url).resolve('@modelcontextprotocol/conformance/package.json'),
);
const here = (name: string) => fileURLToPath(new URL(name, import.meta.url));
const run = promisify(execFile);

let gateway: Gateway;
let output: string;

beforeAll(async () => {
  gateway = await startGateway();
  output = await mkdtemp(join(tmpdir(), 'tenantry-conformance-'));
});

afterAll(async () => {
  await gateway.close();
  await rm(output, { recursive: true, force: true });
});

describe('the public conformance suite, through authorizer and function', () => {
  test('a request without the token gets nowhere', async () => {
    const { status } = await fetch(gateway.url, { method: 'POST', body: '{}' });
    expect(status).toBe(401);
  });

  test('2026-07-28: every required scenario passes', async () => {
    const required = await requiredScenarios('2026-07-28');
    expect(required).toHaveLength(37);
    const results = await runSuite('2026-07-28');
    const unscored = ['http-header-validation', 'json-schema-2020-12'];
    expect(failuresAmong([...required, ...unscored], results)).toEqual({});
  });

  test('2025-11-25: all pass but those that need a session or pushed requests', async () => {
    const required = await requiredScenarios('2025-11-25');
    expect(required).toHaveLength(30);
    const expected = await listed(here('expected-failures.yaml'));
    const results = await runSuite('2025-11-25', ['--expected-failures', here('expected-failures.yaml')]);
    expect(Object.keys(failuresAmong(required, results)).sort()).toEqual([...expected].sort());
  });
});

type Check = { status: string; name: string; errorMessage?: string };

/** Runs the suite against the gateway; its exit code must agree. @returns each scenario's checks */
async function runSuite(revision: string, more: string[] = []): Promise<Map<string, Check[]>> {
  const folder = join(output, revision);
  const args = [
    'server',
    '--url',
    gateway.authenticatedUrl,
    '--requirements',
    revision,
    '-o',
    folder,
    ...more,
  ];
  await run(
    process.execPath,
    ['--import', here('loopback-only.mjs'), join(suite, 'dist/index.js'), ...args],
    {
      env: { PATH: process.env.PATH },
      maxBuffer: 64 * 1024 * 1024,
    },
  );
  const results = new Map<string, Check[]>();
  for (const name of await readdir(folder)) {
    const scenario = /^server-(.+)-\d{4}-\d\d-\d\dT[\d-]+Z$/.exec(name)?.[1];
    if (scenario)
      results.set(scenario, JSON.parse(await readFile(join(folder, name, 'checks.json'), 'utf8')));
  }
  return results;
}

/** Scenarios that failed a check, or were not run at all, with the reasons. */
function failuresAmong(required: string[], results: Map<string, Check[]>): Record<string, string[]> {
  const failures: Record<string, string[]> = {};
  for (const scenario of required) {
    const checks = results.get(scenario);
    const failed = checks?.filter((check) => check.status === 'FAILURE' || check.status === 'WARNING') ?? [];
    if (!checks) failures[scenario] = ['did not run'];
    else if (failed.length > 0)
      failures[scenario] = failed.map((check) => `${check.name}: ${check.errorMessage}`);
  }
  return failures;
}

/** The revision's frozen list, as the suite publishes it. */
const requiredScenarios = (revision: string) => listed(join(suite, 'requirements', `${revision}.yaml`));

/** The entries under `server:`. */
async function listed(file: string): Promise<string[]> {
  const section = /^server:\n((?:(?: {2}[-#].*)?\n)*)/m.exec(await readFile(file, 'utf8'))?.[1] ?? '';
  return [...section.matchAll(/^ {2}- (\S+)/gm)].map((match) => match[1]!);
}
