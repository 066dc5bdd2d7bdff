import { refused } from './refused.ts';

const directiveNames = ['no-transaction', 'shared'] as const;

interface Directives {
  readonly names: ReadonlySet<(typeof directiveNames)[number]>;
  readonly replaces: readonly string[];
}

/** Whole comment lines before the first statement. What is nearly a directive is refused: it would be silently ignored. */
export function directivesOf(file: string, sql: string): Directives {
  const names = new Set<(typeof directiveNames)[number]>();
  const replaces: string[] = [];
  for (const line of sql.split('\n')) {
    if (line.trim() !== '' && !line.startsWith('--')) break;
    const text = line.replace(/^--/, '').trim();
    const name = directiveNames.find((name) => name === text.toLowerCase().replaceAll(/[\s_]+/g, '-'));
    const replaced = /^replaces\W*([0-9a-f]{8,})\W*$/i.exec(text)?.[1];
    const directive = name ?? (replaced && `replaces ${replaced}`);
    if (directive === undefined) continue;
    if (line.trimEnd() !== `-- ${directive}`)
      throw refused(file, `has the line \`${line.trim()}\``, `write \`-- ${directive}\``);
    if (name) names.add(name);
    else if (/^[0-9a-f]{64}$/.test(replaced!)) replaces.push(replaced!);
    else
      throw refused(
        file,
        `has the line \`${line.trim()}\``,
        'give the SHA-256 of the whole earlier text, 64 hexadecimal digits in small letters',
      );
  }
  return { names, replaces };
}
