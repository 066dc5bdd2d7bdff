/**
 * Deletions of one table each, as one statement: a foreign key that restricts looks for rows that still point at a deleted
 * one when the statement ends, however late the others are checked.
 */
export function atOnce(deletions: readonly string[]): string {
  const others = deletions.slice(0, -1).map((text, index) => `deleted_${index} as (${text})`);
  const last = deletions.at(-1) ?? '';
  return others.length === 0 ? last : `with ${others.join(', ')} ${last}`;
}
