import type { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import type pg from 'pg';

/** Rows in and out by COPY: a table of any size passes through in pieces. The library loads at first use. */
export async function copyTo(
  client: pg.Client,
  text: string,
  into: (bytes: Readable) => Promise<void>,
): Promise<number> {
  // CommonJS: in a bundle it has no named exports.
  const { default: copy } = await import('pg-copy-streams');
  const stream = client.query(copy.to(text));
  let isRefused = false;
  const refused = new Promise<never>((_, reject) =>
    stream.once('error', (error) => {
      // A reader that stops ends the stream with this, and says itself why.
      if (error.name === 'AbortError') return;
      isRefused = true;
      reject(error);
    }),
  );
  await Promise.race([
    into(stream).catch((error) => {
      stream.destroy();
      // The server sends all that is left to a reader that has stopped: what is said after it would wait for ever.
      if (!isRefused) client.connection.stream.destroy();
      throw error;
    }),
    refused,
  ]);
  return stream.rowCount ?? 0;
}

export async function copyFrom(client: pg.Client, text: string, from: Readable): Promise<number> {
  const { default: copy } = await import('pg-copy-streams');
  const stream = client.query(copy.from(text));
  await pipeline(from, stream);
  return stream.rowCount ?? 0;
}
