import { readdirSync, readFileSync } from 'node:fs';
import { join, posix } from 'node:path';
import { transformSync } from 'esbuild';

export interface Import {
  /** As written. */
  readonly specifier: string;
  /** A path from the project's root for our own files, else the package's name. */
  readonly target: string;
  readonly kind: 'value' | 'type' | 'dynamic';
}

export interface Source {
  readonly path: string;
  readonly lines: number;
  readonly imports: readonly Import[];
  /** `import(expression)`: nobody can tell what it loads. */
  readonly computedImport: boolean;
  readonly readsEnvironment: boolean;
}

/** Every TypeScript file below the given folders. */
export function readSources(folders: readonly string[]): Source[] {
  return folders.flatMap((folder) =>
    readdirSync(folder, { recursive: true, encoding: 'utf8' })
      .filter((path) => path.endsWith('.ts'))
      .map((path) => posix.normalize(join(folder, path)))
      .map((path) => parseSource(path, readFileSync(path, 'utf8'))),
  );
}

// Static imports stand at the start of a line. They are read from the text, because types are gone from what runs.
const statics = /^\s*(?:import|export)\s+(type\s)?(?:[^'"`;]*?\bfrom\s*)?['"]([^'"]+)['"]/gm;
const calls = /\b(?:import|require)\(\s*(["'`])([^"'`$]+)\1/g;
const computed = /\bimport\(\s*(?!["'`][^"'`$]+["'`])/;
const environment =
  /\bprocess\??\.env\b|\bprocess\["env"\]|\{[^{}]*\benv\b[^{}]*\}\s*(?:=\s*process\b|from\s*"node:process")/;

export function parseSource(path: string, text: string): Source {
  // Without comments and types: what is left runs.
  const code = transformSync(text, {
    loader: 'ts',
    sourcefile: path,
    format: 'esm',
    legalComments: 'none',
    minifyWhitespace: true,
    tsconfigRaw: { compilerOptions: { verbatimModuleSyntax: true } },
  }).code;
  const found: [Import['kind'], string][] = [
    ...Array.from(text.matchAll(statics), (match): [Import['kind'], string] => [
      match[1] ? 'type' : 'value',
      match[2]!,
    ]),
    ...Array.from(code.matchAll(calls), (match): [Import['kind'], string] => ['dynamic', match[2]!]),
  ];
  return {
    path,
    lines: text.split('\n').length - 1,
    imports: found.map(([kind, specifier]) => ({ specifier, kind, target: targetOf(path, specifier) })),
    computedImport: computed.test(code),
    readsEnvironment: environment.test(code),
  };
}

function targetOf(path: string, specifier: string): string {
  if (specifier.startsWith('.')) return posix.join(posix.dirname(path), specifier);
  if (specifier.startsWith('node:')) return specifier;
  return specifier.split('/', specifier.startsWith('@') ? 2 : 1).join('/');
}
