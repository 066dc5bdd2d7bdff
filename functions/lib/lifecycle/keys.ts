import { randomBytes } from 'node:crypto';
import type { JWK } from 'jose';
import { isPair, newSigningKey } from '../auth/api-key.ts';
import type { Secrets } from '../aws/secrets.ts';

/** Names or ARNs of the two secrets that everything else hangs on. */
export interface KeySecrets {
  readonly contextKeySecret: string;
  readonly signingKeySecret: string;
}

/** The pair that signs API keys. Absent: of the first generation. */
export interface SigningKeys {
  readonly generation?: number;
  readonly private: JWK;
  readonly public: JWK;
  /** Of the generation before: what it has signed is still accepted. */
  readonly previous?: JWK;
}

/** What the authorizer trusts: the pair's own public key, and the one that it has replaced. */
export const trustedKeys = ({ public: own, previous }: SigningKeys): JWK[] =>
  previous === undefined ? [own] : [own, previous];

/** Whether the secret's text is a pair. Never says why not: what fails to parse is quoted in the reason. */
export async function holdsPair(text: string): Promise<boolean> {
  try {
    const { private: own, public: shown } = JSON.parse(text) as SigningKeys;
    return await isPair(own, shown);
  } catch {
    return false;
  }
}

/**
 * The key that contexts are signed with and the pair that API keys are signed with: made once, and kept. Two installers
 * at once are kept apart by whoever calls: a deployment runs one.
 * @param generation of the pair: a higher one than the secret's replaces it, and trusts the one right before it alone.
 * A lower one changes nothing: a deployment that falls back must not take keys away.
 */
export async function ensureKeys(
  secrets: Secrets,
  { contextKeySecret, signingKeySecret }: KeySecrets,
  generation = 1,
): Promise<{ context: string; signing: SigningKeys }> {
  const context =
    (await secrets.find(contextKeySecret)) ??
    (await write(secrets, contextKeySecret, {
      current: 'k1',
      keys: { k1: randomBytes(32).toString('base64') },
    }));
  const found = await secrets.find(signingKeySecret);
  const known = found === undefined ? undefined : (JSON.parse(found) as SigningKeys);
  const has = known?.generation ?? 1;
  if (known !== undefined && has >= generation) return { context, signing: known };
  const { privateKey, publicKey } = await newSigningKey();
  const signing: SigningKeys = {
    generation,
    private: privateKey,
    public: publicKey,
    ...(known && has === generation - 1 && { previous: known.public }),
  };
  await write(secrets, signingKeySecret, signing);
  return { context, signing };
}

async function write(secrets: Secrets, name: string, value: object): Promise<string> {
  const text = JSON.stringify(value);
  await secrets.write(name, text);
  return text;
}
