import { execFile } from 'node:child_process';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { beforeAll, describe, expect, it } from 'vitest';
import { functions } from '../../infra/functions.ts';
import {
  type Bundles,
  bytes,
  families,
  loadedAtStart,
  loadedFor,
  loadedToAnswer,
  synthesizeBundles,
} from './bundles.ts';

let bundles: Bundles;
beforeAll(() => {
  bundles = synthesizeBundles();
});
const deployed = (name: string) => bundles.of(name);
/** Named after their content: what several functions load is looked at once. */
const looked = new Set<string>();

describe.each(functions.map(({ name }) => name))('the bundle of %s', (name) => {
  it('starts as Lambda starts it, with the environment of the template', async () => {
    const { folder, environment } = deployed(name);
    const start = `
      globalThis.awslambda = { streamifyResponse: (handler) => handler };
      const { handler } = await import(${JSON.stringify(join(folder, 'handler.mjs'))});
      console.log('handler:', typeof handler);
      process.exit();`;
    // A function that reads a secret while it loads gets no answer, quickly.
    const aws = {
      AWS_ENDPOINT_URL: 'http://127.0.0.1:9',
      AWS_ACCESS_KEY_ID: 'x',
      AWS_SECRET_ACCESS_KEY: 'x',
      AWS_MAX_ATTEMPTS: '1',
    };
    const env = { ...environment, ...aws, NODE_EXTRA_CA_CERTS: '', AWS_REGION: 'eu-west-1' };
    const said = await promisify(execFile)(process.execPath, ['--input-type=module', '-e', start], {
      env,
    }).then(
      ({ stdout }) => stdout,
      ({ stderr }: { stderr: string }) => stderr,
    );
    // Its settings are complete: it came as far as AWS.
    expect(said).toMatch(/handler: function|A credential could not be read/);
  });

  it('finds what it imports lazily, with names', async () => {
    const { folder } = deployed(name);
    const imports = readdirSync(folder).flatMap((file) =>
      Array.from(
        readFileSync(join(folder, file), 'utf8').matchAll(/\bimport\("\.\/([^"]+\.mjs)"\)/g),
        ([, to]) => to!,
      ),
    );
    // Taken by its default, in functions/lib/database/copy.ts and copy-between.ts.
    const byDefault = /^pg-copy-streams-/;
    for (const file of imports.filter((file) => !byDefault.test(file) && !looked.has(file))) {
      looked.add(file);
      const names = Object.keys(await import(/* @vite-ignore */ join(folder, file)));
      // What is CommonJS has `default` alone: `new sdk.Client()` would fail, in Lambda only.
      expect(names, file).not.toEqual(['default']);
    }
  });

  it('loads no AWS client before one is needed', () => {
    const { folder } = deployed(name);
    const code = [...loadedAtStart(folder)].map((file) => readFileSync(join(folder, file), 'utf8')).join();
    // The namespace in every client's schemas.
    expect(code).not.toContain('com.amazonaws.');
  });
});

describe('the MCP function', () => {
  it('keeps both protocol families out of what it loads at start', () => {
    const files = [...loadedAtStart(deployed('mcp').folder)].join();
    expect(files).not.toMatch(/legacy|modern/);
  });

  it.each([
    ['on-demand', []],
    ['provisioned-concurrency', ['legacy']],
  ])('started %s, it has loaded of them: %j', async (type, expected) => {
    const { folder, environment } = deployed('mcp');
    const start = `
      import { registerHooks } from 'node:module';
      registerHooks({ load: (url, context, next) => (console.log(url), next(url, context)) });
      globalThis.awslambda = { streamifyResponse: (handler) => handler };
      await import(${JSON.stringify(join(folder, 'handler.mjs'))});
      process.exit();`;
    const env = { ...environment, AWS_REGION: 'eu-west-1', AWS_LAMBDA_INITIALIZATION_TYPE: type };
    const { stdout } = await promisify(execFile)(process.execPath, ['--input-type=module', '-e', start], {
      env,
    });
    expect(families.filter((family) => stdout.includes(`/${family}-`))).toEqual(expected);
  });

  it.each(families)('has at most 600 KB for a client of the %s family', (family) => {
    const { folder } = deployed('mcp');
    expect(bytes(folder, loadedFor(folder, family))).toBeLessThanOrEqual(600 * 1024);
  });

  it.each([
    ['legacy', 670],
    ['modern', 800],
  ] as const)(
    'has read, before the first answer to a client of the %s family, at most %i KB',
    (family, limit) => {
      const { folder } = deployed('mcp');
      const loaded = loadedToAnswer(folder, family);
      const code = [...loaded].map((file) => readFileSync(join(folder, file), 'utf8')).join();
      for (const client of ['com.amazonaws.secretsmanager', 'rds-db']) expect(code).toContain(client);
      expect(bytes(folder, loaded)).toBeLessThanOrEqual(limit * 1024);
    },
  );
});

it.each([
  ['authorizer', 300],
  // Every operation begins here.
  ['admin', 470],
  ['provision-tenant', 450],
  ['install', 450],
])('%s loads at most %i KB at its start', (name, limit) => {
  const { folder } = deployed(name);
  expect(bytes(folder, loadedAtStart(folder))).toBeLessThanOrEqual(limit * 1024);
});

it('has the migrations wherever something applies them, and nowhere else', () => {
  const having = functions
    .filter(({ name }) => existsSync(join(deployed(name).folder, '../../../migrations/catalog')))
    .map(({ name }) => name);
  expect(having).toEqual(expect.arrayContaining(['provision-tenant', 'install']));
  expect(having).not.toEqual(expect.arrayContaining(['mcp']));
  expect(having).not.toEqual(expect.arrayContaining(['authorizer']));
});
