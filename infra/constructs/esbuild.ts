import { resolve } from 'node:path';
import { build, type Plugin } from 'esbuild';

/**
 * Bundles one function: `node infra/constructs/esbuild.ts <entry> <folder>`. A process of its own, because CDK's
 * constructs can't wait and esbuild takes plugins only where one can. Its answer is the list of the sources.
 */
const [entry, outdir] = process.argv.slice(2) as [string, string];

/** Every language of zod's messages, which it exports as a namespace: more than half of it, and we have sentences of our own. */
const noLocales: Plugin = {
  name: 'no-locales',
  setup({ onResolve, onLoad }) {
    onResolve({ filter: /\/locales\/index\.js$/ }, ({ importer }) =>
      importer.includes('/node_modules/zod/') ? { path: 'locales', namespace: 'empty' } : undefined,
    );
    onLoad({ filter: /.*/, namespace: 'empty' }, () => ({ contents: 'export {}' }));
  },
};

const noValidator = './infra/constructs/no-validator.ts';

/** The package of the older revisions imports its default validator, a compiler of 130 KB, by a path of its own. */
const noDefaultValidator: Plugin = {
  name: 'no-default-validator',
  setup({ onResolve }) {
    onResolve({ filter: /\/validation\/ajv-provider\.js$/ }, ({ importer }) =>
      importer.includes('/@modelcontextprotocol/sdk/') ? { path: resolve(noValidator) } : undefined,
    );
  },
};

const { metafile } = await build({
  entryPoints: { handler: entry },
  outdir,
  metafile: true,
  outExtension: { '.js': '.mjs' },
  bundle: true,
  splitting: true,
  minify: true,
  format: 'esm',
  platform: 'node',
  target: 'node24',
  // What is CommonJS has no named exports for `await import(…)`: the AWS clients come as ES modules too.
  mainFields: ['module', 'main'],
  legalComments: 'none',
  logLevel: 'error',
  plugins: [noLocales, noDefaultValidator],
  // The validator that the package would take by default; both protocol families are given one (functions/lib/mcp/).
  alias: { '@modelcontextprotocol/server/_shims': noValidator },
  // node-postgres asks for its native twin in a try block; Lambda has none.
  external: ['pg-native'],
  // CommonJS packages inside an ES module still call `require` for Node's own modules.
  banner: {
    js: "import { createRequire as $$r } from 'node:module'; const require = $$r(import.meta.url);",
  },
});
process.stdout.write(JSON.stringify(Object.keys(metafile.inputs)));
