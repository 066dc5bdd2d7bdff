import { createHmac, hash } from 'node:crypto';
import { LRUCache } from 'lru-cache';
import { z } from 'zod';
import type { Mode } from '../database/types.ts';
import { TenantryError } from '../errors.ts';
import type { TenantId } from '../tenant/tenant.ts';

/** The tenant of a migration of shared tables: every tenant. Admitted for the purpose `migrate` alone. */
export const everyTenant = '00000000-0000-0000-0000-000000000000' as TenantId;

/** A transaction must begin within this time of the signature, s. */
const lifetime = 60;

export interface ContextClaims {
  /** The database it is made for; no other accepts it. */
  readonly databaseId: string;
  readonly tenant: TenantId;
  readonly epoch: number;
  readonly mode: Mode;
  readonly purpose: 'call' | 'verify' | 'migrate' | 'move';
  /** `statement_timeout` of the transaction, ms. */
  readonly statementMs: number;
}

/** The secret `tenancy/context-key`: master keys by id, of which `current` signs. Two during a rotation. */
export interface MasterKeys {
  readonly current: string;
  readonly keys: ReadonlyMap<string, Buffer>;
}

const secretForm = z.object({
  current: z.string().regex(/^[a-z0-9]{1,16}$/),
  keys: z.record(
    z.string().regex(/^[a-z0-9]{1,16}$/),
    z
      .base64()
      .transform((text) => Buffer.from(text, 'base64'))
      .refine((key) => key.length >= 32, 'at least 32 bytes'),
  ),
});

let parsed: { readonly secret: string; readonly keys: MasterKeys } | undefined;

/** Remembers the last: every call asks. @throws TenantryError `invalid_settings`; the message never holds a key */
export function parseMasterKeys(secret: string): MasterKeys {
  if (parsed?.secret !== secret) parsed = { secret, keys: parse(secret) };
  return parsed.keys;
}

function parse(secret: string): MasterKeys {
  const result = secretForm.safeParse(tryJson(secret));
  if (!result.success || !(result.data.current in result.data.keys))
    throw new TenantryError(
      'invalid_settings',
      'The context-key secret must be JSON `{"current": "<id>", "keys": {"<id>": "<32 bytes or more, base64>"}}`.',
    );
  return { current: result.data.current, keys: new Map(Object.entries(result.data.keys)) };
}

function tryJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** One database's key: whoever steals it from that database can forge nothing for another. */
function databaseKey(master: Buffer, databaseId: string): Buffer {
  return createHmac('sha256', master).update(`tenancy database ${databaseId}`).digest();
}

/** Of each master key, what it signs with for a database: every call signs, and deriving costs five times as much. */
const signingPads = new WeakMap<Buffer, LRUCache<string, KeyPads>>();

function signingPadsOf(master: Buffer, databaseId: string): KeyPads {
  const known = signingPads.get(master) ?? new LRUCache<string, KeyPads>({ max: 1_000 });
  signingPads.set(master, known);
  const pads = known.get(databaseId) ?? keyPads(master, databaseId);
  known.set(databaseId, pads);
  return pads;
}

interface KeyPads {
  readonly inner: Buffer;
  readonly outer: Buffer;
}

/** The two halves in which the database holds its key, so that it needs only `sha256()` to check a signature (RFC 2104). */
export function keyPads(master: Buffer, databaseId: string): KeyPads {
  const block = Buffer.alloc(64);
  databaseKey(master, databaseId).copy(block);
  return {
    inner: block.map((byte) => byte ^ 0x36) as Buffer,
    outer: block.map((byte) => byte ^ 0x5c) as Buffer,
  };
}

/** The signed statement of which tenant a transaction belongs to, for `tenancy.admit`. */
export function signContext(keys: MasterKeys, claims: ContextClaims, now: number): string {
  const master = keys.keys.get(keys.current)!;
  const message = [
    'v1',
    keys.current,
    claims.databaseId,
    claims.tenant,
    claims.epoch,
    claims.mode,
    claims.purpose,
    Math.max(1, Math.floor(claims.statementMs)),
    Math.floor(now / 1000) + lifetime,
  ].join('.');
  // As the database checks it. Two hashes in one go each cost a third of an Hmac object.
  const { inner, outer } = signingPadsOf(master, claims.databaseId);
  const digest = hash('sha256', Buffer.concat([inner, Buffer.from(message)]), 'buffer');
  const signature = hash('sha256', Buffer.concat([outer, digest]), 'hex');
  return `${message}.${signature}`;
}
