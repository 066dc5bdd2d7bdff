import { describe, expect, it } from 'vitest';
import { type Import, parseSource, readSources, type Source } from './support/sources.ts';

/** Which file may import what. A rule forbids; its remedy says what to do instead. */
interface Rule {
  /** The files that the rule binds. */
  readonly files: RegExp;
  /** Files it does not bind. */
  readonly except?: RegExp;
  readonly forbids: (target: string, imported: Import, file: string) => boolean;
  readonly remedy: string;
}

const startsWith =
  (...prefixes: string[]) =>
  (target: string) =>
    prefixes.some((prefix) => target.startsWith(prefix));

/** The part of `functions/` a path belongs to: a function's name, or `lib`. */
const functionOf = (path: string) => path.match(/^functions\/([^/]+)/)?.[1];

const rules: Rule[] = [
  {
    files: /^functions\/mcp\/tools\//,
    forbids: (target) =>
      target !== 'functions/lib/mcp/tool.ts' &&
      target !== 'zod' &&
      !/^(drizzle-orm|kysely)(\/|$)/.test(target) &&
      !target.startsWith('functions/mcp/tools/'),
    remedy:
      'A tool imports functions/lib/mcp/tool.ts, zod, Drizzle or Kysely; what else it needs, it is handed in `run`.',
  },
  {
    files: /^functions\/lib\//,
    forbids: (target) => functionOf(target) !== undefined && functionOf(target) !== 'lib',
    remedy: 'Shared code knows no function: move what both need into functions/lib and pass the rest in.',
  },
  {
    files: /^functions\/(?!lib\/)/,
    forbids: (target, _, file) => ![undefined, 'lib', functionOf(file)].includes(functionOf(target)),
    remedy: 'Functions are deployed one by one: move what both need into functions/lib.',
  },
  {
    files: /^functions\//,
    forbids: startsWith('infra/', 'aws-cdk-lib', 'constructs', 'bench/'),
    remedy:
      'A function does not know where it runs: take it from an environment variable (functions/lib/settings.ts).',
  },
  {
    files: /./,
    except: /^(test|bench)\//,
    forbids: startsWith('test/', 'vitest', 'fast-check'),
    remedy: 'Only tests and benchmarks import test code: move the helper to where it is used.',
  },
  {
    files: /./,
    except: /^(functions\/lib\/database|test|bench)\//,
    forbids: (target) => /^(@types\/)?pg(-.*)?$/.test(target),
    remedy: 'Only functions/lib/database speaks to PostgreSQL: use withConnection or a TenantDatabase.',
  },
  {
    files: /./,
    except: /^(functions\/lib\/aws|infra\/local|test|bench)\//,
    forbids: startsWith('@aws-sdk/', '@smithy/'),
    remedy: 'Only functions/lib/aws calls AWS: give it a function there that says what is wanted.',
  },
  {
    files: /^functions\/lib\/aws\//,
    forbids: (target, { kind }) => target.startsWith('@aws-sdk/') && kind === 'value',
    remedy:
      'AWS clients are half of a cold start: load them with `await import(…)` where they are first used.',
  },
  {
    files: /^functions\/lib\/database\//,
    forbids: startsWith(
      ...['catalog', 'isolation', 'migrations', 'lifecycle', 'mcp', 'auth', 'aws'].map(
        (layer) => `functions/lib/${layer}/`,
      ),
    ),
    remedy:
      'The database layer knows connections and statements only: what it needs from above is passed in.',
  },
  {
    files: /^functions\/lib\/catalog\//,
    forbids: startsWith(
      ...['isolation', 'migrations', 'lifecycle', 'mcp'].map((layer) => `functions/lib/${layer}/`),
    ),
    remedy: 'The catalog records what is; deciding and doing belong to isolation and migrations above it.',
  },
  {
    files: /^functions\/lib\/(isolation|migrations|move)\//,
    forbids: startsWith('functions/lib/lifecycle/', 'functions/lib/mcp/'),
    remedy:
      'Isolation, migrations and moves carry out; lifecycle above them decides when: pass the result up instead.',
  },
  {
    files: /^functions\/lib\/mcp\//,
    forbids: startsWith(
      ...['catalog', 'isolation', 'migrations', 'lifecycle', 'aws'].map((layer) => `functions/lib/${layer}/`),
    ),
    remedy: 'The protocol knows no tenant’s home: the handler passes `open`, which yields a bound database.',
  },
  {
    files: /^functions\/lib\/tenant\//,
    forbids: (target) => target.startsWith('functions/') && target !== 'functions/lib/errors.ts',
    remedy: 'The tenant’s words are what everything else stands on: they import none of it.',
  },
];

const mayReadEnvironment =
  /^(functions\/lib\/settings\.ts|infra\/(verify\/)?settings\.ts|(infra\/local|test|bench)\/.*)$/;

function violations(source: Source): string[] {
  const imports = source.imports.flatMap((imported) =>
    rules
      .filter(({ files, except }) => files.test(source.path) && !except?.test(source.path))
      .filter(({ forbids }) => forbids(imported.target, imported, source.path))
      .map(({ remedy }) => `${source.path} imports ${imported.specifier}. ${remedy}`),
  );
  const environment = `${source.path} reads process.env. Add the variable to functions/lib/settings.ts and take it as a parameter.`;
  const computed = `${source.path} imports a computed path. Write the path out, so that bundler and this test can follow it.`;
  return [
    ...imports,
    ...(source.readsEnvironment && !mayReadEnvironment.test(source.path) ? [environment] : []),
    ...(source.computedImport && source.path.startsWith('functions/') ? [computed] : []),
  ];
}

/** Longer than 300 lines, and why that reads better than the parts would. */
const long: Record<string, string> = {
  'test/admin/migrations.test.ts': 'one fleet behind one admin API: planned, migrated and compared in turn',
  'functions/lib/settings.ts': 'every variable of every function, read in one place',
  'test/infra/iam.test.ts': 'one matrix: who may do what',
  'test/infra/rules.test.ts':
    'rules over one synthesis of each deployment: another file would make them all again',
  'test/lib/auth/verify-token.test.ts': 'one catalogue of forged tokens, all against one issuer',
  'test/lib/health/mutation.test.ts':
    'one table: every way to sabotage a system, and what the next run says of it',
  'test/lib/runtime/context.test.ts':
    'what a context must hold, over three strategies, is one table of refusals',
  'test/lib/lifecycle/migrate.test.ts':
    'one fleet, taken from run to run: each begins where the last has ended',
  'test/lib/transfer/transfer.test.ts':
    'one export, taken in by every strategy and spoilt in every way: the parts share its files',
  'test/lib/transfer/schemas.test.ts':
    'one world with all that schemas of others are made of, in every strategy',
  'test/lib/health/run.test.ts': 'a world with its canaries takes seconds to make and is shared',
  'test/system/system.test.ts': 'one deployment, which takes half a minute to make and is shared',
  'test/local/start.test.ts': 'one local system, followed from its first start to its last',
  'test/local/login.test.ts': 'one login, followed through three clients',
  'test/local/rds.test.ts': 'instances take seconds to start and are shared',
};

const sources = readSources(['bench', 'functions', 'infra', 'test']);

describe('the tree', () => {
  it('was read: its known imports are found', () => {
    const tool = sources.find(({ path }) => path === 'functions/lib/mcp/tool.ts');
    expect(tool?.imports).toContainEqual({ specifier: 'zod', target: 'zod', kind: 'type' });
    expect(sources.length).toBeGreaterThan(50);
  });

  it('keeps its import directions', () => {
    expect(sources.flatMap(violations)).toEqual([]);
  });

  it('has no file over 300 lines without a reason, and no reason without its file', () => {
    // An adopting team's own tests are as long as it likes.
    const ours = sources.filter(({ path }) => !path.startsWith('test/tools/'));
    const over = ours.filter(({ lines }) => lines > 300).map(({ path }) => path);
    expect(over.sort(), 'Split the file, or add it to `long` above with the reason.').toEqual(
      Object.keys(long).sort(),
    );
  });
});

describe('a planted violation is caught', () => {
  it.each([
    ['functions/mcp/tools/x.ts', "import pg from 'pg';"],
    ['functions/mcp/tools/x.ts', "import { createAccess } from '../../lib/isolation/access.ts';"],
    ['functions/mcp/tools/x.ts', "import {\n  readFile,\n} from 'node:fs/promises';"],
    ['functions/lib/mcp/x.ts', "import type { Pool } from 'pg';"],
    ['functions/lib/catalog/x.ts', "export { access } from '../isolation/access.ts';"],
    ['functions/lib/database/x.ts', "import { catalog } from '../catalog/catalog.ts';"],
    ['functions/lib/x.ts', "const tools = await import('../mcp/tools/index.ts');"],
    ['functions/lib/x.ts', 'const handler = require(`../mcp/handler.ts`);'],
    ['functions/authorizer/x.ts', "import '../mcp/handler.ts';"],
    ['functions/admin/x.ts', "export * from '../../infra/endpoint.ts';"],
    ['functions/lib/auth/x.ts', "const rds = await import('@aws-sdk/client-rds');"],
    ['functions/lib/aws/x.ts', "import { RDSClient } from '@aws-sdk/client-rds';"],
    ['infra/stacks/x.ts', "import { world } from '../../test/support/world.ts';"],
    ['infra/stacks/x.ts', "import { Client } from 'pg';"],
    ['functions/lib/tenant/x.ts', "import { sql } from '../database/sql.ts';"],
  ])('%s: %s', (path, text) => {
    const specifier = text.match(/['"`](.+)['"`]/)![1];
    const found = violations(parseSource(path, text));
    expect(found.length).toBeGreaterThan(0);
    // File, import and what to do.
    for (const message of found) expect(message).toMatch(/^\S+ imports \S+\. .{30,}/);
    expect(found[0]).toContain(`${path} imports ${specifier}.`);
  });

  it.each([
    'process.env.X',
    "process['env'].X",
    'process?.env',
    'const { env } = process',
    "import { env } from 'node:process'",
  ])('environment: %s', (text) => {
    expect(violations(parseSource('functions/lib/x.ts', text))).toEqual([
      expect.stringContaining('functions/lib/x.ts reads process.env'),
    ]);
  });

  it('a path that is computed', () => {
    expect(violations(parseSource('functions/lib/x.ts', 'await import(`./$' + '{name}.ts`)'))).toHaveLength(
      1,
    );
    expect(violations(parseSource('functions/lib/x.ts', 'await import(name)'))).toHaveLength(1);
  });

  it('but a query builder in a tool is none', () => {
    const text =
      "import { drizzle } from 'drizzle-orm/node-postgres';\nimport { Kysely, PostgresDialect } from 'kysely';";
    expect(violations(parseSource('functions/mcp/tools/x.ts', text))).toEqual([]);
  });

  it('and a comment or a type is not mistaken for one', () => {
    const text =
      "// process.env is read elsewhere, import('pg') too\nimport type { Tool } from './mcp/tool.ts';";
    expect(violations(parseSource('functions/lib/x.ts', text))).toEqual([]);
  });
});
