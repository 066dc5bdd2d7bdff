import { LRUCache } from 'lru-cache';
import type { Statement } from './statement.ts';

/**
 * The frontend messages of the extended protocol that a round trip consists of, for unnamed statements and
 * portals (PostgreSQL's "Message Formats"). As one buffer, because a write of one is cheaper for the socket
 * than a gathered write of the fourteen that they are.
 */
export function writeMessages(parts: readonly Outgoing[]): Buffer {
  const parses = parts.map(({ statement }) => parseMessage(statement.text));
  let length = SYNC.length;
  for (const [index, part] of parts.entries()) {
    length += parses[index]!.length + bindLength(part.statement.values) + EXECUTE_LENGTH;
    if (part.describe) length += DESCRIBE.length;
  }

  const buffer = Buffer.allocUnsafe(length);
  let at = 0;
  for (const [index, part] of parts.entries()) {
    at += parses[index]!.copy(buffer, at);
    at = writeBind(buffer, at, part.statement.values);
    if (part.describe) at += DESCRIBE.copy(buffer, at);
    buffer[at] = 0x45; // E
    buffer.writeInt32BE(EXECUTE_LENGTH - 1, at + 1);
    buffer[at + 5] = 0; // no portal name
    buffer.writeInt32BE(part.maxRows, at + 6);
    at += EXECUTE_LENGTH;
  }
  SYNC.copy(buffer, at);
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
/** Type, length, no portal name, rows. */
const EXECUTE_LENGTH = 1 + 4 + 1 + 4;

/** A process sends the same few texts again and again, of 16 KB at most. */
const parseMessages = new LRUCache<string, Buffer>({ max: 200 });

function parseMessage(text: string): Buffer {
  const known = parseMessages.get(text);
  if (known) return known;
  const length = 4 + 1 + Buffer.byteLength(text) + 1 + 2;
  // Zeros: no name, the text's end, no parameter types (the server infers them).
  const message = Buffer.alloc(1 + length);
  message[0] = 0x50; // P
  message.writeInt32BE(length, 1);
  message.write(text, 6);
  parseMessages.set(text, message);
  return message;
}

const byteLength = (value: string | Buffer | null): number =>
  value === null ? 0 : typeof value === 'string' ? Buffer.byteLength(value) : value.length;

function bindLength(values: Statement['values']): number {
  let length = 1 + 4 + 1 + 1 + 2 + 2 + 2;
  for (const value of values) length += 2 + 4 + byteLength(value);
  return length;
}

function writeBind(buffer: Buffer, start: number, values: Statement['values']): number {
  let at = buffer.writeUInt8(0x42, start); // B
  at = buffer.writeInt32BE(bindLength(values) - 1, at);
  at = buffer.writeUInt16BE(0, at); // neither a portal's name nor a statement's
  at = buffer.writeUInt16BE(values.length, at);
  for (const value of values) at = buffer.writeUInt16BE(Buffer.isBuffer(value) ? 1 : 0, at);
  at = buffer.writeUInt16BE(values.length, at);
  for (const value of values) {
    at = buffer.writeInt32BE(value === null ? -1 : byteLength(value), at);
    if (typeof value === 'string') at += buffer.write(value, at);
    else if (value) at += value.copy(buffer, at);
  }
  return buffer.writeUInt16BE(0, at); // all results as text
}
