/** Values as the server writes them. */
export const asText = { getTypeParser: () => (value: unknown) => value };

/** Each of them on a line. */
export function say(value: unknown): string {
  if (typeof value === 'string') return value;
  if (Array.isArray(value)) return value.map(say).join('\n');
  if (value === null || typeof value !== 'object') return String(value);
  return Object.values(value).map(say).join('\n');
}
