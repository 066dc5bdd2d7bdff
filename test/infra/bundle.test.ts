import { execFile } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { beforeAll, describe, expect, it } from 'vitest';
import { functions } from '../../infra/functions.ts';
import { type Synthesized, synthesize } from './synthesize.ts';

interface Lambda {
  readonly folder: string;
  readonly environment: Record<string, string>;
}

let built: Synthesized;
beforeAll(() => {
  built = synthesize({
    domain: { name: 'mcp.example.com', certificateArn: 'arn:aws:acm:eu-west-1:111122223333:certificate/abc' },
  });
});

/** The code that the template deploys, and the environment it deploys it with. */
function deployed(name: string): Lambda {
  const lambdas = Object.entries(built.template.findResources('AWS::Lambda::Function'));
  const { Properties } = lambdas.find(([id]) => id.toLowerCase().startsWith(`${name}function`))![1];
  const asset = Properties.Code.S3Key.replace(/\.zip$/, '');
  return { folder: join(built.app.outdir, `asset.${asset}`), environment: Properties.Environment.Variables };
}

/** `handler.mjs` and what it imports at once, not lazily. */
function loadedAtStart(folder: string, file = 'handler.mjs', seen = new Set<string>()): Set<string> {
  if (seen.has(file)) return seen;
  seen.add(file);
  const code = readFileSync(join(folder, file), 'utf8');
  for (const [, next] of code.matchAll(/\b(?:import|from)"\.\/([^"]+\.mjs)"/g))
    loadedAtStart(folder, next, seen);
  return seen;
}

describe.each(functions.filter(({ plane }) => plane === 'data').map(({ name }) => name))(
  'the bundle of %s',
  (name) => {
    it('starts as Lambda starts it, with the environment of the template', async () => {
      const { folder, environment } = deployed(name);
      const start = `
      globalThis.awslambda = { streamifyResponse: (handler) => handler };
      const { handler } = await import(${JSON.stringify(join(folder, 'handler.mjs'))});
      console.log('handler:', typeof handler);
      process.exit();`;
      const { stdout } = await promisify(execFile)(process.execPath, ['--input-type=module', '-e', start], {
        env: { ...environment, NODE_EXTRA_CA_CERTS: '', AWS_REGION: 'eu-west-1' },
      });
      expect(stdout).toContain('handler: function');
    });

    it('loads no AWS client before one is needed', () => {
      const { folder } = deployed(name);
      const code = [...loadedAtStart(folder)].map((file) => readFileSync(join(folder, file), 'utf8')).join();
      // The namespace in every client's schemas.
      expect(code).not.toContain('com.amazonaws.');
    });
  },
);

it('keeps both protocol families out of what the MCP function loads at start', () => {
  const files = [...loadedAtStart(deployed('mcp').folder)].join();
  expect(files).not.toMatch(/legacy|modern/);
});
