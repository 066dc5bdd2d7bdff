import type { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { type ControlConnection, controlConnection, openClient } from './connect.ts';
import type { Endpoint } from './types.ts';

/** A control-plane connection from which rows go to another one, in PostgreSQL's own text form. */
export interface CopyConnection extends ControlConnection {
  /**
   * Streams what `copy (…) to stdout` here yields into `copy … from stdin` there. When it fails, both connections are
   * gone: where in the stream each of them was, nobody knows.
   */
  stream(out: string, there: CopyConnection, into: string): Promise<Streamed>;
  /** The receiving end of another one's `stream`. */
  receive(into: string): NodeJS.WritableStream;
  close(): Promise<void>;
  destroy(): void;
}

export interface Streamed {
  readonly rowCount: number;
  /** As PostgreSQL wrote it, without its end; undefined when there was no row. */
  readonly lastLine: string | undefined;
}

/** @throws ConnectFailure; its `cause` says why */
export async function openCopyConnection(endpoint: Endpoint): Promise<CopyConnection> {
  // CommonJS: in a bundle it has no named exports.
  const { default: copy } = await import('pg-copy-streams');
  const client = await openClient(endpoint);
  const destroy = () => client.connection.stream.destroy();
  return {
    ...controlConnection(client),
    async stream(out, there, into) {
      try {
        const rows = client.query(copy.to(out));
        const lastLine = watchLastLine(rows);
        await pipeline(rows, there.receive(into));
        return { rowCount: rows.rowCount ?? 0, lastLine: lastLine() };
      } catch (error) {
        destroy();
        there.destroy();
        throw error;
      }
    },
    receive: (into) => client.query(copy.from(into)),
    close: () => client.end().catch(() => {}),
    destroy,
  };
}

const NEWLINE = 0x0a;

/** Of a stream of lines that somebody else reads. A line's own newlines are escaped. */
function watchLastLine(lines: Readable): () => string | undefined {
  let last: Buffer[] = [];
  lines.on('data', (chunk: Buffer) => {
    const begin = chunk.lastIndexOf(NEWLINE, -2) + 1;
    const isNew = begin > 0 || last.at(-1)?.at(-1) === NEWLINE;
    last = isNew ? [chunk.subarray(begin)] : [...last, chunk];
  });
  return () => (last.length === 0 ? undefined : Buffer.concat(last).toString('utf8').slice(0, -1));
}
