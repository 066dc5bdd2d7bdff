import { importRefused } from './manifest.ts';

const [quote, backslash, dot, lineFeed, carriageReturn] = [0x22, 0x5c, 0x2e, 0x0a, 0x0d];

/**
 * Passes the bytes of a CSV file on. Before version 18 PostgreSQL takes a line that is `\.` alone for the end, and passes over
 * all rows behind it without a word. In quotes it is a value.
 * @throws TenantryError `import_refused` when something comes behind such a line
 */
export async function* toItsEnd(bytes: AsyncIterable<unknown>, file: string) {
  let isQuoted = false;
  /** How many bytes of `\.` its line begins with; undefined: the line is another one. */
  let ending: number | undefined = 0;
  let hasEnded = false;
  for await (const chunk of bytes) {
    for (const byte of chunk as Buffer) {
      const isBreak = byte === lineFeed || byte === carriageReturn;
      if (hasEnded && !isBreak)
        throw importRefused(
          `The file ${file} has a line \`\\.\` and rows behind it, which would be passed over. Put such a value into quotes, or leave the line out.`,
        );
      if (byte === quote) isQuoted = !isQuoted;
      if (isBreak && !isQuoted) {
        hasEnded ||= ending === 2;
        ending = 0;
      } else if (ending === 0 && byte === backslash) ending = 1;
      else if (ending === 1 && byte === dot) ending = 2;
      else ending = undefined;
    }
    yield chunk;
  }
}
