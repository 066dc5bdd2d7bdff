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

/** What of a script is a file's, and where the migrator's own statements that belong to it end. */
export interface Part {
  readonly file: string;
  readonly sql: string;
  readonly from: number;
  readonly end: number;
}

/** What PostgreSQL says of a statement that failed; `completed`: how many of the script before it did not. */
interface FailedScript {
  readonly position?: string;
  readonly completed?: number;
}

/** Which statement of which part has failed: `own` is false for one that the migrator has added. */
export function failedAt(
  script: string,
  parts: readonly Part[],
  { position, completed = 0 }: FailedScript,
): { file: string; at: string; own: boolean } | undefined {
  const place =
    position === undefined
      ? splitStatements(script).places[completed]?.begin
      : inUnits(script, Number(position) - 1);
  const part = parts.find(({ from, end }) => place !== undefined && from <= place && place < end);
  if (part === undefined) return undefined;
  const split = splitStatements(part.sql);
  const index = split.places.findIndex(({ to }) => place! < part.from + to);
  if (index < 0) return { file: part.file, at: ', at its end', own: false };
  return { file: part.file, at: atStatement(part.sql, split, index), own: true };
}

/** PostgreSQL counts characters, a string of ours UTF-16 units. */
function inUnits(text: string, characters: number): number {
  let units = 0;
  for (let counted = 0; counted < characters; counted += 1)
    units += text.codePointAt(units)! > 0xffff ? 2 : 1;
  return units;
}
