import { createCipheriv, createDecipheriv, hkdfSync, randomBytes } from 'node:crypto';
import { TenantryError } from '../errors.ts';
import type { ToolHelpers } from './tool.ts';

/** Whose position it is: nobody else, and no other tool, can open it. */
export interface CursorBinding {
  readonly tenant: string;
  /** How the principal was verified: the same subject of two issuers is two principals. */
  readonly auth: string;
  readonly principal: string;
  readonly tool: string;
}

export type Cursors = (binding: CursorBinding) => ToolHelpers['cursor'];

const version = 1;
const purpose = 'tenantry cursor v1';
const nonceBytes = 12;
const tagBytes = 16;
/** Characters; a position is a sort key or two. */
const maxLength = 4096;

/**
 * AES-256-GCM under a key derived for this use alone, so that a cursor says nothing about the context key. Sealed with
 * the first master key, opened with any of them: during a rotation the cursors of a minute ago still work.
 */
export function createCursors(
  masterKeys: readonly Uint8Array[],
  random: (bytes: number) => Buffer = randomBytes,
): Cursors {
  if (masterKeys.length === 0) throw new TypeError('Cursors need a master key.');
  // At the first use: most calls seal nothing.
  let derived: Buffer[] | undefined;
  const keys = (): Buffer[] => {
    derived ??= masterKeys.map((key) => Buffer.from(hkdfSync('sha256', key, '', purpose, 32)));
    return derived;
  };

  return ({ tenant, auth, principal, tool }) => {
    const bound = Buffer.from(JSON.stringify([version, tenant, auth, principal, tool]));
    return {
      seal(position) {
        const nonce = random(nonceBytes);
        const cipher = createCipheriv('aes-256-gcm', keys()[0]!, nonce).setAAD(bound);
        const sealed = [cipher.update(JSON.stringify(position), 'utf8'), cipher.final()];
        return Buffer.concat([Buffer.of(version), nonce, ...sealed, cipher.getAuthTag()]).toString(
          'base64url',
        );
      },
      open(cursor) {
        const bytes = cursor.length > maxLength ? Buffer.alloc(0) : Buffer.from(cursor, 'base64url');
        if (bytes[0] !== version || bytes.length <= 1 + nonceBytes + tagBytes) throw invalidCursor();
        for (const key of keys()) {
          const text = decrypt(key, bytes, bound);
          if (text !== undefined) return JSON.parse(text);
        }
        throw invalidCursor();
      },
    };
  };
}

function decrypt(key: Buffer, bytes: Buffer, bound: Buffer): string | undefined {
  try {
    const decipher = createDecipheriv('aes-256-gcm', key, bytes.subarray(1, 1 + nonceBytes), {
      authTagLength: tagBytes,
    })
      .setAAD(bound)
      .setAuthTag(bytes.subarray(-tagBytes));
    return (
      decipher.update(bytes.subarray(1 + nonceBytes, -tagBytes), undefined, 'utf8') + decipher.final('utf8')
    );
  } catch {
    return undefined;
  }
}

const invalidCursor = () =>
  new TenantryError('invalid_cursor', 'The cursor is not valid here. Start again without a cursor.');
