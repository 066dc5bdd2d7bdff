import { type Refusal, rpc } from './refusal.ts';

/** What one request body may hold. Tool arguments are small: these are far above use and far below harm. */
export const bounds = {
  bytes: 1024 * 1024,
  depth: 32,
  /** Values and keys in the whole body. */
  elements: 10_000,
} as const;

/** Names that reach a prototype when careless code merges objects; no tool needs them as an argument. */
const forbiddenKeys = new Set(['__proto__', 'constructor', 'prototype']);

export type Message = { readonly [key: string]: unknown };
type Checked<T> = { readonly ok: T } | { readonly refusal: Refusal };

/** Reads at most `bounds.bytes`, whatever `Content-Length` claims. */
export async function readBody(request: Request): Promise<Checked<string>> {
  if (Number(request.headers.get('content-length')) > bounds.bytes) return { refusal: tooLarge };
  if (request.body === null) return { ok: '' };
  const chunks: Uint8Array[] = [];
  let received = 0;
  for await (const chunk of request.body) {
    received += chunk.byteLength;
    if (received > bounds.bytes) return { refusal: tooLarge };
    chunks.push(chunk);
  }
  try {
    const bytes = chunks.length === 1 ? chunks[0] : Buffer.concat(chunks);
    return { ok: new TextDecoder('utf-8', { fatal: true }).decode(bytes) };
  } catch {
    return { refusal: notJson };
  }
}

/** One JSON-RPC message, within the bounds; everything about its method and parameters is still unchecked. */
export function parseMessage(text: string): Checked<Message> {
  const excess = measure(text);
  if (excess) return { refusal: excess };
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return { refusal: notJson };
  }
  const fault = faultOf(value);
  if (fault) return { refusal: fault };
  if (!isObject(value) || !isMessage(value)) return { refusal: notMessage };
  return { ok: value };
}

/** Counts without parsing, so that a bomb costs one pass over its text and no memory. */
function measure(text: string): Refusal | undefined {
  let depth = 0;
  let elements = 0;
  let inText = false;
  let first = true;
  for (let index = 0; index < text.length; index++) {
    const character = text.charCodeAt(index);
    if (inText) {
      if (character === backslash) index++;
      else if (character === quote) inText = false;
      continue;
    }
    switch (character) {
      case space:
      case tab:
      case lineFeed:
      case carriageReturn:
        continue;
      case quote:
        inText = true;
        break;
      case openArray:
        if (first) return batch;
        if (++depth > bounds.depth) return tooDeep;
        elements++;
        break;
      case openObject:
        if (++depth > bounds.depth) return tooDeep;
        elements++;
        break;
      case closeArray:
      case closeObject:
        depth--;
        break;
      case comma:
      case colon:
        if (++elements > bounds.elements) return tooMany;
        break;
    }
    first = false;
  }
  return undefined;
}

const [space, tab, lineFeed, carriageReturn] = [0x20, 0x09, 0x0a, 0x0d];
const [quote, backslash, comma, colon] = [0x22, 0x5c, 0x2c, 0x3a];
const [openArray, closeArray, openObject, closeObject] = [0x5b, 0x5d, 0x7b, 0x7d];

/** PostgreSQL stores neither NUL nor half a surrogate pair: refused here, once, instead of in every tool's statement. */
function faultOf(value: unknown): Refusal | undefined {
  if (typeof value === 'string') return value.includes('\0') || !value.isWellFormed() ? badText : undefined;
  if (typeof value !== 'object' || value === null) return undefined;
  if (Array.isArray(value)) {
    for (const item of value) {
      const fault = faultOf(item);
      if (fault) return fault;
    }
    return undefined;
  }
  for (const key of Object.keys(value)) {
    if (forbiddenKeys.has(key)) return forbiddenKey;
    const fault = faultOf(key) ?? faultOf((value as Message)[key]);
    if (fault) return fault;
  }
  return undefined;
}

/** JSON-RPC 2.0: a request, a notification, or an answer (which older clients may post). */
function isMessage(value: Message): boolean {
  if (value.jsonrpc !== '2.0') return false;
  if (Object.hasOwn(value, 'id') && typeof value.id !== 'string' && !Number.isSafeInteger(value.id))
    return false;
  if (!Object.hasOwn(value, 'method')) return isObject(value.result) || isObject(value.error);
  return typeof value.method === 'string' && (value.params === undefined || isObject(value.params));
}

export function isObject(value: unknown): value is Message {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

const tooLarge: Refusal = {
  status: 413,
  rpc: rpc.invalidRequest,
  code: 'body_too_large',
  message: `The request body is larger than ${bounds.bytes} bytes. Send less in one call.`,
};
const notJson: Refusal = {
  status: 400,
  rpc: rpc.parseError,
  code: 'invalid_json',
  message: 'Parse error: the request body is not JSON in UTF-8.',
};
const batch = invalid('batch_refused', 'Send one JSON-RPC message per request: batches are not accepted.');
const tooDeep = invalid('too_deep', `The request is nested deeper than ${bounds.depth} levels.`);
const tooMany = invalid('too_many_elements', `The request holds more than ${bounds.elements} values.`);
const badText = invalid('malformed_text', 'Text may hold neither NUL characters nor unpaired surrogates.');
const forbiddenKey = invalid('forbidden_key', `The keys ${[...forbiddenKeys].join(', ')} are not accepted.`);
const notMessage = invalid('invalid_message', 'The request body is not one JSON-RPC 2.0 message.');

function invalid(code: string, message: string): Refusal {
  return { status: 400, rpc: rpc.invalidRequest, code, message: `Invalid request: ${message}` };
}
