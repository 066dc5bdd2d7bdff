import type { SecretsManagerClient } from '@aws-sdk/client-secrets-manager';
import { RetryableError, TenantryError } from '../errors.ts';
import { awsFailure, failsAs } from './failure.ts';

const service = 'Secrets Manager';

export interface Secrets {
  /** The secret's text; from memory when it was read before. `fresh`: what was read before was refused. @throws RetryableError `unavailable`, TenantryError `internal` when there is none */
  read(name: string, fresh?: boolean): Promise<string>;
  /** As `read`, but undefined when there is no such secret. */
  find(name: string): Promise<string | undefined>;
  /** Puts a new version of the secret, or creates it. @throws RetryableError `unavailable` */
  write(name: string, value: string): Promise<void>;
  /** The same where none was found: one call, not two. */
  create(name: string, value: string): Promise<void>;
  /** At once, without a recovery window: for what was never used. Done when there is none. @throws RetryableError `unavailable` */
  remove(name: string): Promise<void>;
  /** Names that begin with `prefix`, at most `limit` of them: as they were within the last five minutes. @throws RetryableError `unavailable` */
  list(prefix: string, limit: number): Promise<string[]>;
  /** Whether there is one now that is not about to be deleted. No value is read. @throws RetryableError `unavailable` */
  isThere(name: string): Promise<boolean>;
}

/** Secrets Manager. The client is loaded at its first use: it is a good part of a function's load time. */
export function createSecrets(): Secrets {
  let client:
    | Promise<{ sdk: typeof import('@aws-sdk/client-secrets-manager'); client: SecretsManagerClient }>
    | undefined;
  const known = new Map<string, Promise<string>>();
  const load = () => {
    client ??= import('@aws-sdk/client-secrets-manager').then((sdk) => ({
      sdk,
      client: new sdk.SecretsManagerClient({ maxAttempts: 3 }),
    }));
    return client;
  };

  async function fetchSecret(name: string): Promise<string | undefined> {
    const { sdk, client } = await load();
    try {
      return (await client.send(new sdk.GetSecretValueCommand({ SecretId: name }))).SecretString;
    } catch (cause) {
      if (cause instanceof sdk.ResourceNotFoundException) return undefined;
      throw new RetryableError('unavailable', 'A credential could not be read. Try again.', 2, { cause });
    }
  }

  async function mustExist(name: string): Promise<string> {
    const text = await fetchSecret(name);
    if (text === undefined)
      throw new TenantryError('internal', `The secret ${name} does not exist or is not text.`);
    return text;
  }

  const sendCreate = async (name: string, value: string) => {
    const { sdk, client } = await load();
    await client.send(new sdk.CreateSecretCommand({ Name: name, SecretString: value }));
    known.delete(name);
  };

  async function write(name: string, value: string): Promise<void> {
    const { sdk, client } = await load();
    const put = () => client.send(new sdk.PutSecretValueCommand({ SecretId: name, SecretString: value }));
    try {
      // First, so that who may not create the secret can still give it a value.
      await put();
    } catch (error) {
      if (error instanceof sdk.ResourceNotFoundException)
        await sendCreate(name, value).catch((error) => {
          // Somebody else was first.
          if (error instanceof sdk.ResourceExistsException) return put().catch(failsAs(service));
          throw writeFailure(sdk, error);
        });
      // Deleted not long ago: the name is free only after its recovery window, but the secret can be taken back.
      else if (error instanceof sdk.InvalidRequestException) {
        await client.send(new sdk.RestoreSecretCommand({ SecretId: name })).catch((error) => {
          throw writeFailure(sdk, error);
        });
        await put().catch(failsAs(service));
      } else throw awsFailure(service, error);
    }
    known.delete(name);
  }

  return {
    read(name, fresh = false) {
      let secret = fresh ? undefined : known.get(name);
      if (secret === undefined) {
        secret = mustExist(name);
        known.set(name, secret);
        // A failure is not remembered, unless a newer read has taken its place.
        secret.catch(() => known.get(name) === secret && known.delete(name));
      }
      return secret;
    },
    find: fetchSecret,
    write,
    // Whatever speaks against it, `write` can do without it, or says so.
    create: (name, value) => sendCreate(name, value).catch(() => write(name, value)),
    async remove(name) {
      const { sdk, client } = await load();
      known.delete(name);
      await client
        .send(new sdk.DeleteSecretCommand({ SecretId: name, ForceDeleteWithoutRecovery: true }))
        .catch((error) => {
          if (!(error instanceof sdk.ResourceNotFoundException)) throw awsFailure(service, error);
        });
    },
    async isThere(name) {
      const { sdk, client } = await load();
      try {
        return (
          (await client.send(new sdk.DescribeSecretCommand({ SecretId: name }))).DeletedDate === undefined
        );
      } catch (error) {
        if (error instanceof sdk.ResourceNotFoundException) return false;
        throw awsFailure(service, error);
      }
    },
    async list(prefix, limit) {
      const { sdk, client } = await load();
      const names: string[] = [];
      let NextToken: string | undefined;
      do {
        const Filters = [{ Key: 'name' as const, Values: [prefix] }];
        const command = new sdk.ListSecretsCommand({ Filters, MaxResults: 100, NextToken });
        const page = await client.send(command).catch((cause: unknown) => {
          throw new RetryableError('unavailable', 'The secrets could not be listed. Try again.', 2, {
            cause,
          });
        });
        names.push(...(page.SecretList ?? []).flatMap(({ Name }) => Name ?? []));
        NextToken = page.NextToken;
      } while (NextToken !== undefined && names.length < limit);
      // AWS looks for the words of the prefix, wherever they stand.
      return names.filter((name) => name.startsWith(prefix)).slice(0, limit);
    },
  };
}

/** One that was removed at once goes in the background, and has its name until then: seconds, in which it can't be taken back either. */
const writeFailure = (sdk: typeof import('@aws-sdk/client-secrets-manager'), cause: unknown) =>
  cause instanceof sdk.InvalidRequestException
    ? new RetryableError('unavailable', 'A secret of that name is still being deleted. Try again.', 2, {
        cause,
      })
    : awsFailure(service, cause);
