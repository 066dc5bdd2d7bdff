import { type SplitScript, splitStatements } from './split-statements.ts';

/** Of a position in a file, from 1. */
export const lineOf = (sql: string, position: number): number =>
  sql.slice(0, position).split(/\r\n|\n|\r/).length;

/** For a refusal: where the statement begins in its file, and its first words. */
export const atStatement = (
  sql: string,
  { statements, places }: Pick<SplitScript, 'statements' | 'places'>,
  index: number,
): string => `, at line ${lineOf(sql, places[index]!.begin)} (\`${beginningOf(statements[index]!)}\`)`;

export const atLast = (sql: string, split: Pick<SplitScript, 'statements' | 'places'>): string =>
  split.places.length === 0 ? '' : atStatement(sql, split, split.places.length - 1);

/** Its first words, on one line. */
export function beginningOf(statement: string): string {
  const words = statement.replaceAll(/\s+/g, ' ');
  return words.length > 80 ? `${words.slice(0, 79)}…` : words;
}

/** A statement of a file, and how a refusal tells where it is. */
export interface PlacedStatement {
  readonly sql: string;
  /** In tables that tenants share; for nobody: it reaches no rows. */
  readonly runs: 'for each' | 'for each if needed' | 'for nobody';
  /** It writes rows, and makes no table. */
  readonly writes: boolean;
  at(): string;
}

/** As they are run, one by one: PostgreSQL then says how many were done before one that fails. */
export function statementsOf(sql: string): PlacedStatement[] {
  const split = splitStatements(sql);
  return split.places.map(({ begin, to }, index) => {
    const text = sql.slice(begin, to);
    return {
      // In a function PostgreSQL takes SELECT INTO for that language's own, unless something comes after it.
      sql: /^(?!insert|merge)[\s\S]*\binto\b/i.test(split.bare[index]!) ? `${text}\n;select` : text,
      runs: runsOf(split.bare[index]!),
      writes: /^(insert|update|delete|merge|with)\b/i.test(split.bare[index]!),
      at: () => atStatement(sql, split, index),
    };
  });
}

function runsOf(bare: string): PlacedStatement['runs'] {
  // Rows that are written as constants are nobody's: tenants that come later would not have them.
  if (/^(update|delete|merge|with|insert\b[\s\S]*\bselect)\b/i.test(bare)) return 'for each';
  if (/^(do|call)\b/i.test(bare)) return 'for each if needed';
  return 'for nobody';
}
