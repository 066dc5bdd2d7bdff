import type { Statement } from './statement.ts';

/**
 * The frontend messages of the extended protocol that a round trip consists of, for unnamed statements and
 * portals (PostgreSQL's "Message Formats"). As one buffer, because a write of one is cheaper for the socket
 * than a gathered write of the fourteen that they are.
 */
export function writeMessages(parts: readonly Outgoing[]): Buffer {
  const texts = parts.map(({ statement }) => Buffer.from(statement.text));
  const values = parts.map(({ statement }) => statement.values.map(toBytes));
  let length = SYNC.length;
  parts.forEach((part, index) => {
    length += 5 + 1 + texts[index]!.length + 1 + 2;
    length += 5 + 1 + 1 + 2 + 2 * values[index]!.length + 2 + 4 * values[index]!.length + 2;
    for (const value of values[index]!) length += value?.length ?? 0;
    if (part.describe) length += DESCRIBE.length;
    length += 5 + 1 + 4;
  });

  const buffer = Buffer.allocUnsafe(length);
  let at = 0;
  const byte = (value: number) => (at = buffer.writeUInt8(value, at));
  const int16 = (value: number) => (at = buffer.writeUInt16BE(value, at));
  const int32 = (value: number) => (at = buffer.writeInt32BE(value, at));
  const bytes = (value: Uint8Array) => {
    buffer.set(value, at);
    at += value.length;
  };
  /** A message: its type, then its length, which counts itself. */
  const message = (type: string, body: () => void) => {
    byte(type.charCodeAt(0));
    const start = at;
    int32(0);
    body();
    buffer.writeInt32BE(at - start, start);
  };

  parts.forEach((part, index) => {
    message('P', () => {
      byte(0); // no name
      bytes(texts[index]!);
      byte(0);
      int16(0); // no parameter types: the server infers them
    });
    message('B', () => {
      const list = values[index]!;
      byte(0); // no portal name
      byte(0); // no statement name
      int16(list.length);
      for (const raw of part.statement.values) int16(Buffer.isBuffer(raw) ? 1 : 0);
      int16(list.length);
      for (const value of list) {
        int32(value ? value.length : -1);
        if (value) bytes(value);
      }
      int16(0); // all results as text
    });
    if (part.describe) bytes(DESCRIBE);
    message('E', () => {
      byte(0);
      int32(part.maxRows);
    });
  });
  bytes(SYNC);
  return buffer;
}

export interface Outgoing {
  readonly statement: Statement;
  readonly describe: boolean;
  /** 0: all. */
  readonly maxRows: number;
}

const SYNC = Buffer.from([0x53, 0, 0, 0, 4]);
/** Describe the unnamed portal. */
const DESCRIBE = Buffer.from([0x44, 0, 0, 0, 6, 0x50, 0]);

const toBytes = (value: string | Buffer | null): Buffer | null =>
  typeof value === 'string' ? Buffer.from(value) : value;
