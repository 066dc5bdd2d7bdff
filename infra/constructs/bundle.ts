import { join } from 'node:path';
import { Stage } from 'aws-cdk-lib';
import { Code } from 'aws-cdk-lib/aws-lambda';
import type { Construct } from 'constructs';
import { buildSync } from 'esbuild';

/**
 * One function's code: `handler.mjs`, and what it imports lazily (`await import(…)`) in chunks beside it, which Lambda
 * reads only when they are needed. CDK's own NodejsFunction can't split, and loading the AWS clients and both protocol
 * families up front is most of a cold start.
 */
export function bundle(scope: Construct, entry: string, root: string): Code {
  const folder = join(Stage.of(scope)!.outdir, 'bundles', scope.node.addr);
  buildSync({
    absWorkingDir: root,
    entryPoints: { handler: entry },
    outdir: folder,
    outExtension: { '.js': '.mjs' },
    bundle: true,
    splitting: true,
    minify: true,
    format: 'esm',
    platform: 'node',
    target: 'node24',
    legalComments: 'none',
    logLevel: 'error',
    // node-postgres asks for its native twin in a try block; Lambda has none.
    external: ['pg-native'],
    // CommonJS packages inside an ES module still call `require` for Node's own modules.
    banner: {
      js: "import { createRequire as $$r } from 'node:module'; const require = $$r(import.meta.url);",
    },
  });
  return Code.fromAsset(folder);
}
