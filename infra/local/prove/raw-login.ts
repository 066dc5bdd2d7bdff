import { setTimeout } from 'node:timers/promises';
import { connectClient } from '../../../functions/lib/database/connection.ts';
import type { Endpoint } from '../../../functions/lib/database/types.ts';
import type { MasterKeys } from '../../../functions/lib/isolation/context.ts';
import type { Way } from './attack.ts';
import type { Attempt, Look } from './attempt.ts';
import { asText, say } from './heard.ts';
import { contextOf, type Party } from './party.ts';

type Client = Awaited<ReturnType<typeof connectClient>>;

/** A machine that is busy takes its time for a handshake, which says nothing about walls. */
async function connect(endpoint: Endpoint): Promise<Client> {
  for (let left = 5; ; left -= 1) {
    try {
      return await connectClient(endpoint, false);
    } catch (error) {
      if (left === 0) throw error;
      await setTimeout(500);
    }
  }
}

/** The attacker's login, with nothing between it and the server. */
export function openLogin(keys: MasterKeys, attacker: Party) {
  let client: Client | undefined;
  let heard: string[] = [];
  let way: Way = 'simple';

  async function open(): Promise<Client> {
    const opened = await connect(attacker.endpoint);
    opened.connection.on('copyData', ({ chunk }: { chunk: Buffer }) => heard.push(chunk.toString()));
    opened.on('notice', (notice) => heard.push(say({ ...notice, message: notice.message })));
    // node-postgres refuses a COPY from the client, but in the extended protocol its Sync has then been swallowed.
    opened.connection.on('copyInResponse', () => way === 'extended' && opened.connection.sync());
    return opened;
  }

  /** Without anything that an earlier attempt has left in it. */
  async function asNew(): Promise<Client> {
    if (client !== undefined)
      try {
        await client.query('rollback');
        await client.query('discard all');
        return client;
      } catch {
        client.connection.stream.destroy();
      }
    return open();
  }

  async function send(on: Client, text: string): Promise<boolean> {
    try {
      const config = {
        text,
        types: asText,
        ...(way === 'extended' && { values: [], queryMode: 'extended' }),
      };
      const results: unknown = await on.query(config as { text: string });
      for (const result of Array.isArray(results) ? results : [results]) heard.push(say(result.rows));
      return true;
    } catch (error) {
      heard.push(say({ ...(error as object), message: (error as Error).message }));
      return false;
    }
  }

  return {
    async attempt(
      from: 'call' | 'session',
      statements: readonly string[],
      by: 'simple' | 'extended',
      look: Look,
    ): Promise<Attempt> {
      const on = await asNew();
      client = on;
      heard = [];
      way = by;
      if (from === 'call') {
        await on.query('begin isolation level read committed read write');
        await on.query({ text: 'select tenancy.enter($1)', values: [contextOf(keys, attacker)] });
      }
      for (const statement of statements) {
        const within = on.getTransactionStatus() === 'T';
        if (within) await on.query('savepoint here');
        if (await send(on, statement)) continue;
        // Whatever state it is in now, the next statement shall have its chance.
        const undo = within ? 'rollback to here' : 'select';
        await on.query(undo).catch(() => on.query('rollback'));
      }
      const held = await look.blocked();
      // What was changed becomes visible to the victim now.
      if (on.getTransactionStatus() === 'T') await on.query('commit').catch(() => {});
      return { heard: heard.join('\n'), harm: held ?? (await look.harm()) };
    },
    close: () => client?.connection.stream.destroy(),
  };
}
