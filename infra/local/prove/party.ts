import { randomUUID } from 'node:crypto';
import type { Endpoint, Mode } from '../../../functions/lib/database/types.ts';
import {
  type ContextClaims,
  type MasterKeys,
  signContext,
} from '../../../functions/lib/isolation/context.ts';
import type { Home } from '../../../functions/lib/isolation/isolation.ts';

/** A tenant as an attack knows it: where it lives, and the login that its tools use. */
export interface Party extends Home {
  readonly name: string;
  readonly database: string;
  readonly databaseId: string;
  readonly endpoint: Endpoint;
}

/** A context as the product signs it for the party, altered at will. */
export function contextOf(
  keys: MasterKeys,
  party: Party,
  claims: Partial<ContextClaims> = {},
  now = Date.now(),
): string {
  const { databaseId, tenant, epoch } = party;
  const mode: Mode = 'w';
  return signContext(
    keys,
    { databaseId, tenant, epoch, mode, purpose: 'call', statementMs: 20_000, ...claims },
    now,
  );
}

/** What an attacker makes of its own context without having a key. */
export function forgeries(context: string, victim: Party): string[] {
  const parts = context.split('.');
  const altered = (change: Record<number, string>) => parts.map((part, at) => change[at] ?? part).join('.');
  return [
    altered({ 3: victim.tenant }),
    altered({ 2: victim.databaseId, 3: victim.tenant, 4: String(victim.epoch) }),
    altered({ 3: victim.tenant, 9: '0'.repeat(64) }),
    altered({ 3: victim.tenant, 9: '' }),
    altered({ 1: "' or '1'='1", 3: victim.tenant }),
    altered({ 6: 'move' }),
    altered({ 6: 'migrate', 3: '00000000-0000-0000-0000-000000000000' }),
    altered({ 8: '99999999999', 3: victim.tenant }),
    // A part more or less must not shift what is signed against what is read.
    `${context}.${victim.tenant}`,
    `v1.${parts[1]}.${parts[2]}.${victim.tenant}.${parts.slice(3).join('.')}`,
    parts.with(0, 'v2').with(3, victim.tenant).join('.'),
    victim.tenant,
  ];
}

/** Truly signed for the attacker, and yet not for this transaction. None of them is ever handed to a tool. */
export function misfits(keys: MasterKeys, attacker: Party): string[] {
  return [
    contextOf(keys, attacker, { epoch: attacker.epoch + 1 }),
    contextOf(keys, attacker, { mode: 'r' }),
    contextOf(keys, attacker, { databaseId: randomUUID() }),
    contextOf(keys, attacker, {}, Date.now() - 120_000),
  ];
}
