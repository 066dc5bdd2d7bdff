import { execFile } from 'node:child_process';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { parseMigration } from '../functions/lib/migrations/migration-file.ts';
import { functions } from '../infra/functions.ts';
import { startWorld, strategies, type World } from './support/world.ts';

const run = promisify(execFile);
const readme = readFileSync('README.md', 'utf8');
const examples = (language: string) =>
  Array.from(
    readme.matchAll(new RegExp(`^\`\`\`${language}\\n([\\s\\S]*?)^\`\`\``, 'gm')),
    (match) => match[1]!,
  );

describe('the documents', () => {
  it.each(['README.md', 'ARCHITECTURE.md', 'SECURITY.md', 'DEPLOYING.md', 'RUNBOOK.md', 'CHANGELOG.md'])(
    '%s names only what exists',
    (document) => {
      const text = readFileSync(document, 'utf8');
      const { scripts } = JSON.parse(readFileSync('package.json', 'utf8')) as {
        scripts: Record<string, string>;
      };
      const commands = Array.from(text.matchAll(/npm (?:run )?([a-z:]+)/g), (match) => match[1]!);
      expect(commands.filter((command) => command !== 'ci' && !(command in scripts))).toEqual([]);
      const paths = Array.from(
        text.matchAll(/`((?:functions|infra|migrations|test|bench)\/[\w./-]*)`/g),
        (match) => match[1]!,
      );
      const links = Array.from(text.matchAll(/\]\((\w[\w./-]*)\)/g), (match) => match[1]!);
      expect([...paths, ...links].filter((path) => !existsSync(path))).toEqual([]);
    },
  );

  it('ARCHITECTURE.md has every function in its map', () => {
    const map = readFileSync('ARCHITECTURE.md', 'utf8');
    const entries = functions.map(({ entry }) => entry);
    // Of a function with more than its handler the map has the folder.
    expect(
      entries.filter((entry) => ![entry, `${dirname(entry)}/`].some((path) => map.includes(`\`${path}\``))),
    ).toEqual([]);
  });

  it('the README stays short', () => {
    expect(readme.split('\n').length).toBeLessThanOrEqual(170);
  });
});

describe('the tool of the README', () => {
  let folder: string;
  beforeAll(() => {
    // A project beside ours that has our library and this one tool.
    folder = mkdtempSync(join(tmpdir(), 'tenantry-readme-'));
    mkdirSync(join(folder, 'functions/mcp/tools'), { recursive: true });
    symlinkSync(resolve('functions/lib'), join(folder, 'functions/lib'));
    symlinkSync(resolve('node_modules'), join(folder, 'node_modules'));
    writeFileSync(join(folder, 'package.json'), '{ "type": "module" }');
    const settings = { extends: resolve('tsconfig.json'), include: ['functions/mcp'] };
    writeFileSync(join(folder, 'tsconfig.json'), JSON.stringify(settings));
    expect(examples('ts')).toHaveLength(1);
    writeFileSync(join(folder, 'functions/mcp/tools/example.ts'), examples('ts')[0]!);
  });
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  it('has the right types', async () => {
    const { stdout } = await run(resolve('node_modules/.bin/tsc'), ['--noEmit', '-p', folder]);
    expect(stdout).toBe('');
  });

  it('can be loaded', async () => {
    const file = join(folder, 'functions/mcp/tools/example.ts');
    const script = `import { countItems } from ${JSON.stringify(file)}; console.log(countItems.name);`;
    const { stdout } = await run(process.execPath, ['--input-type=module', '-e', script]);
    expect(stdout.trim()).toBe('count_items');
  });
});

describe('the table of the README', () => {
  let world: World;
  beforeAll(async () => {
    const [sql] = examples('sql');
    world = await startWorld({ migrations: [parseMigration('9500-readme.sql', sql!)] });
  });
  afterAll(() => world?.close());

  // The migrator's audit has passed for each home, or the world would not have started.
  it.each(strategies)('belongs to each tenant alone under %s', async (strategy) => {
    const { a, b } = world.tenants[strategy];
    await world.database(a).query("insert into suppliers (name) values ('Ours')");
    expect((await world.database(a).query('select name from suppliers')).rows).toEqual([{ name: 'Ours' }]);
    expect((await world.database(b).query('select name from suppliers')).rows).toEqual([]);
  });
});
