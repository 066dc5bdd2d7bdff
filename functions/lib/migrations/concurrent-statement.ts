import { refused } from './refused.ts';
import { splitList } from './split-statements.ts';

/** The one statement of a file with `-- no-transaction`. */
export interface ConcurrentStatement {
  readonly verb: 'create' | 'drop' | 'reindex';
  /** The index, or the table of `reindex table`; a name without a schema. */
  readonly name: string;
  readonly of: 'index' | 'table';
  /** Of an index that is made. */
  readonly table?: string;
  readonly sql: string;
  /** Where in its file it is, for a refusal. */
  readonly at: string;
}

const name = '([a-z_][a-z0-9_]*)';
const create = new RegExp(
  `^create\\s+(unique\\s+)?index\\s+concurrently\\s+${name}\\s+on\\s+${name}(\\s*(?:using\\s|\\()[\\s\\S]*)$`,
  'i',
);
const drop = new RegExp(`^drop\\s+index\\s+concurrently\\s+${name}$`, 'i');
const reindex = new RegExp(`^reindex\\s+(index|table)\\s+concurrently\\s+${name}$`, 'i');

/**
 * Read before it runs, because what it does cannot be rolled back.
 * @throws TenantryError `migration_refused`
 */
export function parseConcurrent(
  file: string,
  statements: readonly string[],
  /** Where the last of them is, for the refusal. */
  at: string,
): ConcurrentStatement {
  const [sql] = statements;
  if (statements.length !== 1 || sql === undefined)
    throw refused(
      file,
      `has ${statements.length} statements and \`-- no-transaction\`${at}`,
      'write exactly one `create index concurrently`, `drop index concurrently` or `reindex … concurrently`',
    );
  const made = create.exec(sql);
  if (made) {
    const [, unique, index, table, rest] = made as unknown as [string, string?, string?, string?, string?];
    if (table?.toLowerCase() === 'only') throw other(file, at);
    if (unique !== undefined && !keyColumns(rest!).includes('tenant_id'))
      throw refused(
        file,
        `makes an index of ${table} that is unique over all tenants${at}`,
        'add tenant_id to its columns',
      );
    return { verb: 'create', of: 'index', name: index!.toLowerCase(), table: table!.toLowerCase(), sql, at };
  }
  const dropped = drop.exec(sql);
  if (dropped) return { verb: 'drop', of: 'index', name: dropped[1]!.toLowerCase(), sql, at };
  const rebuilt = reindex.exec(sql);
  if (rebuilt)
    return {
      verb: 'reindex',
      of: rebuilt[1]!.toLowerCase() as 'index' | 'table',
      name: rebuilt[2]!.toLowerCase(),
      sql,
      at,
    };
  throw other(file, at);
}

const other = (file: string, at: string) =>
  refused(
    file,
    `has another statement than \`-- no-transaction\` allows${at}`,
    'write `create [unique] index concurrently <name> on <table> …`, `drop index concurrently <name>` or `reindex index|table concurrently <name>`, ' +
      'names without schema, quotes or `if [not] exists`',
  );

/** The plain columns among an index's key: what stands between the first parentheses. */
function keyColumns(text: string): string[] {
  const key = text.slice(text.indexOf('(') + 1);
  return splitList(key).map((column) => column.trim().split(/[\s)]/)[0]!.toLowerCase());
}
