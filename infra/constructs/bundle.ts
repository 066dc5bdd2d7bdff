import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { cpSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { Stage } from 'aws-cdk-lib';
import { Code } from 'aws-cdk-lib/aws-lambda';
import type { Construct } from 'constructs';

/**
 * Where a bundle's code lies in its asset. As deep as the modules of `functions/lib` are in the project: what one of
 * them finds relative to itself (`../../../migrations/`), it finds in the bundle too.
 */
const place = 'functions/lib/bundle';
export const bundleHandler = `${place}/handler.handler`;

/**
 * One function's code: `handler.mjs`, and what it imports lazily (`await import(…)`) in chunks beside it, which Lambda
 * reads only when they are needed. CDK's own NodejsFunction can't split, and loading the AWS clients and both protocol
 * families up front is most of a cold start. Code that applies migrations gets them beside it.
 */
export function bundle(scope: Construct, entry: string, root: string): Bundle {
  const folder = join(Stage.of(scope)!.outdir, 'bundles', scope.node.addr);
  const migrates = build(entry, root, join(folder, place));
  if (migrates) cpSync(join(root, 'migrations'), join(folder, 'migrations'), { recursive: true });
  const digest = createHash('sha256');
  for (const name of readdirSync(folder, { recursive: true, encoding: 'utf8' }).sort())
    if (statSync(join(folder, name)).isFile()) digest.update(name).update(readFileSync(join(folder, name)));
  return { code: Code.fromAsset(folder), digest: digest.digest('hex') };
}

export interface Bundle {
  readonly code: Code;
  /** Changes with the code and the migrations in it. */
  readonly digest: string;
}

/** One process synthesizes the same sources again and again in the tests. */
const known = new Map<string, { readonly folder: string; readonly migrates: boolean }>();

/** @returns whether the code applies migrations */
function build(entry: string, root: string, folder: string): boolean {
  const before = known.get(entry);
  if (before) {
    cpSync(before.folder, folder, { recursive: true });
    return before.migrates;
  }
  const script = join(import.meta.dirname, 'esbuild.ts');
  const inputs = JSON.parse(
    execFileSync(process.execPath, [script, entry, folder], { cwd: root, encoding: 'utf8' }),
  ) as string[];
  const migrates = inputs.some((input) => /^functions\/lib\/migrations\/(install|migrator)\.ts$/.test(input));
  known.set(entry, { folder, migrates });
  return migrates;
}
