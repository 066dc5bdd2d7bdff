import { readdirSync, readFileSync, statSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { Assembly } from './assembly.ts';
import { synthesize } from './synthesize.ts';

/** A function as it is deployed: its code, unpacked, and the environment that the template gives it. */
export interface Bundle {
  readonly folder: string;
  readonly environment: Readonly<Record<string, string>>;
}

export interface Bundles {
  of(name: string): Bundle;
}

export const families = ['legacy', 'modern'] as const;

/** What would be uploaded, with what a deployment fills in written out. */
export function synthesizeBundles(): Bundles {
  const built = synthesize({
    domain: { name: 'mcp.example.com', certificateArn: 'arn:aws:acm:eu-west-1:111122223333:certificate/abc' },
    issuers: [{ issuer: 'https://login.example.com/', jwksUri: 'https://login.example.com/keys' }],
  });
  const machines = built.template('control').findResources('AWS::StepFunctions::StateMachine');
  const buckets = Object.keys(built.template('control').findResources('AWS::S3::Bucket'));
  const arn = (id: string) => `arn:aws:states:eu-west-1:111122223333:stateMachine:${id}`;
  const installed = built.template('data').findResources('Custom::TenantryInstallation');
  const assembly = new Assembly(built, {
    [`TenantryData.${Object.keys(installed)[0]}.ApiKeyJwks`]: '{"keys":[]}',
    ...Object.fromEntries(buckets.map((id) => [`TenantryControl.${id}`, id.toLowerCase()])),
    ...Object.fromEntries(Object.keys(machines).map((id) => [`TenantryControl.${id}`, arn(id)])),
  });
  return {
    of(name) {
      const { properties } = assembly.only(
        'AWS::Lambda::Function',
        new RegExp(`^${name.replaceAll('-', '')}Function`, 'i'),
      );
      const asset = properties.Code.S3Key.replace(/\.zip$/, '');
      return {
        folder: join(built.app.outdir, `asset.${asset}`, dirname(properties.Handler)),
        environment: properties.Environment.Variables,
      };
    },
  };
}

/** `handler.mjs` and what it imports at once, not lazily. */
export function loadedAtStart(
  folder: string,
  file = 'handler.mjs',
  seen = new Set<string>(),
): ReadonlySet<string> {
  if (seen.has(file)) return seen;
  seen.add(file);
  const code = readFileSync(join(folder, file), 'utf8');
  for (const [, next] of code.matchAll(/\b(?:import|from)"\.\/([^"]+\.mjs)"/g))
    loadedAtStart(folder, next, seen);
  return seen;
}

/** The same, and what a client of a protocol family brings in. */
export function loadedFor(folder: string, family: (typeof families)[number]): ReadonlySet<string> {
  const chunk = readdirSync(folder).find((file) => file.startsWith(`${family}-`))!;
  return loadedAtStart(folder, chunk, new Set(loadedAtStart(folder)));
}

/**
 * The same, and AWS's clients that every new environment needs before its first answer: the reader of the context key and the
 * maker of IAM tokens. What they look for credentials with beside the environment's is not: Lambda gives those.
 */
export function loadedToAnswer(folder: string, family: (typeof families)[number]): ReadonlySet<string> {
  const loaded = new Set(loadedFor(folder, family));
  const code = readFileSync(join(folder, 'handler.mjs'), 'utf8');
  for (const [, client] of code.matchAll(/\bimport\("\.\/(dist-es-[^"]+\.mjs)"\)/g))
    loadedAtStart(folder, client, loaded);
  return loaded;
}

export const bytes = (folder: string, files: Iterable<string>): number =>
  [...files].reduce((sum, file) => sum + statSync(join(folder, file)).size, 0);
