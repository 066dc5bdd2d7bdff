import { pipeline } from 'node:stream/promises';
import { type ControlConnection, controlConnection, openClient } from './connect.ts';
import type { Endpoint } from './types.ts';

/** A control-plane connection from which rows go to another one, in PostgreSQL's own text form. */
export interface CopyConnection extends ControlConnection {
  /**
   * Streams what `copy (…) to stdout` here yields into `copy … from stdin` there. When it fails, both connections are
   * gone: where in the stream each of them was, nobody knows.
   */
  stream(out: string, there: CopyConnection, into: string): Promise<void>;
  /** The receiving end of another one's `stream`. */
  receive(into: string): NodeJS.WritableStream;
  close(): Promise<void>;
  destroy(): void;
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
        await pipeline(client.query(copy.to(out)), there.receive(into));
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
