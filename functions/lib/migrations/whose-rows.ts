import type { MigrationFile } from './migration-file.ts';
import { atStatement } from './places.ts';
import { refused, requireNone } from './refused.ts';
import { splitStatements } from './split-statements.ts';

/**
 * In shared tables a migration reaches the rows of all tenants at once, and two of them may have the same key. What joins rows, or
 * compares them with others, without tenant_id gives one tenant what is another's. In a tenant's own tables it does no harm, and in
 * an empty home neither, so no canary and no rehearsal would find it.
 * @throws TenantryError `migration_refused`
 */
export function requireWhose(files: readonly MigrationFile[]): void {
  const read = files.map((file) => ({ file, split: splitStatements(file.sql) }));
  const forAll = new Set(
    read.flatMap(({ file, split }) => (file.makesReferenceTables ? split.statements.flatMap(tableOf) : [])),
  );
  const faults = read.flatMap(({ file, split }) => {
    const mixing = file.makesReferenceTables
      ? []
      : [...split.statements.keys()].filter((index) => mixesTenants(split.statements[index]!, forAll));
    if (mixing.length === 0) return [];
    const more = mixing.length === 1 ? '' : `, and in ${mixing.length - 1} more`;
    return refused(
      file.name,
      `reads tenants’ rows without tenant_id${atStatement(file.sql, split, mixing[0]!)}${more}`,
      'in shared tables it reaches all tenants’ at once, so say whose: join by tenant_id too (`where a.tenant_id = b.tenant_id and …`), or group by it',
    );
  });
  requireNone(faults);
}

const name = String.raw`("(?:[^"]|"")+"|[a-z_\u0080-\uffff][\w$\u0080-\uffff]*)`;
const plain = (written: string) =>
  written.startsWith('"') ? written.slice(1, -1).replaceAll('""', '"') : written.toLowerCase();

function tableOf(statement: string): string[] {
  const made = new RegExp(
    `^create\\s+(?:unlogged\\s+)?table\\s+(?:if\\s+not\\s+exists\\s+)?${name}`,
    'i',
  ).exec(statement);
  return made ? [plain(made[1]!)] : [];
}

/** A table or view that rows are read from; what is followed by a parenthesis is a function. */
const sources = new RegExp(
  `\\b(from|join|using)\\s+(?:(?:only|lateral)\\s+)*${name}(?![\\w$.\\u0080-\\uffff]|\\s*\\()`,
  'gi',
);
const named = new RegExp(`${name}\\s*(?:\\([^()]*\\))?\\s+as\\s+(?:not\\s+)?(?:materialized\\s+)?\\(`, 'gi');

function mixesTenants(statement: string, forAll: ReadonlySet<string>): boolean {
  if (!/^(insert|update|delete|merge|with)\b/i.test(statement)) return false;
  const text = statement.replaceAll(/'(?:[^']|'')*'|\$(\w*)\$[\s\S]*?\$\1\$/g, "''");
  if (/\btenant_id\b/i.test(text)) return false;
  // What they read is looked at where they stand.
  const known = new Set([...forAll, ...[...text.matchAll(named)].map((match) => plain(match[1]!))]);
  return [...text.matchAll(sources)].some(
    ({ index, 2: source }) => isClause(text.slice(0, index)) && !known.has(plain(source!)),
  );
}

/** Not of `delete from`, `is distinct from`, `extract(… from …)` and the like. */
function isClause(before: string): boolean {
  if (/\b(delete|distinct)\s+$/i.test(before)) return false;
  let depth = 0;
  for (let at = before.length - 1; at >= 0; at -= 1) {
    if (before[at] === ')') depth += 1;
    else if (before[at] === '(' && depth-- === 0)
      return /\b(select|delete|update|merge)\b/i.test(before.slice(at));
  }
  return true;
}
