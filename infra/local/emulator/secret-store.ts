import { randomBytes, randomUUID } from 'node:crypto';
import {
  InvalidParameterException$,
  InvalidRequestException$,
  ResourceExistsException$,
  ResourceNotFoundException$,
} from '@aws-sdk/client-secrets-manager';
import { fault } from './service.ts';

/** AWS's example account; part of every ARN. */
export const accountId = '111122223333';

export interface Version {
  id: string;
  string?: string | undefined;
  /** base64 */
  binary?: string | undefined;
  stages: string[];
  createdAt: number;
}

/** One secret as it is stored: JSON, times in ms. */
export interface Secret {
  arn: string;
  name: string;
  description?: string | undefined;
  tags: { Key: string; Value: string }[];
  /** `rds`: only RDS may change or delete it. */
  owner?: string | undefined;
  createdAt: number;
  changedAt: number;
  /** In its recovery window until then. */
  deleteAt?: number | undefined;
  versions: Version[];
}

export interface SecretValue {
  SecretString?: string | undefined;
  SecretBinary?: Uint8Array | undefined;
}

/** The rules of Secrets Manager over the stored secrets; the wire is `secrets-manager.ts`. */
export class SecretStore {
  readonly #secrets: Record<string, Secret>;
  readonly #save: () => Promise<void>;
  readonly #clock: () => number;

  constructor(secrets: Record<string, Secret>, save: () => Promise<void>, clock: () => number) {
    this.#secrets = secrets;
    this.#save = save;
    this.#clock = clock;
  }

  /** By name, ARN, or ARN without its random suffix; also one in its recovery window. */
  find(id: string): Secret | undefined {
    for (const secret of Object.values(this.#secrets)) {
      if (secret.deleteAt !== undefined && secret.deleteAt <= this.#clock())
        delete this.#secrets[secret.name];
    }
    if (!id.startsWith('arn:')) return Object.hasOwn(this.#secrets, id) ? this.#secrets[id] : undefined;
    return Object.values(this.#secrets).find(({ arn }) => arn === id || arn.slice(0, -7) === id);
  }

  all(): Secret[] {
    this.find('');
    return Object.values(this.#secrets);
  }

  /** The secret, when it exists and is not being deleted. */
  live(id: string): Secret {
    const secret = this.any(id);
    if (secret.deleteAt !== undefined) {
      throw fault(
        InvalidRequestException$,
        "You can't perform this operation on the secret because it was marked for deletion.",
      );
    }
    return secret;
  }

  any(id: string): Secret {
    const secret = this.find(id);
    if (!secret) throw fault(ResourceNotFoundException$, "Secrets Manager can't find the specified secret.");
    return secret;
  }

  /** For callers other than the owning service. */
  writable(id: string): Secret {
    const secret = this.live(id);
    if (secret.owner !== undefined) {
      throw fault(
        InvalidRequestException$,
        `The secret is managed by ${secret.owner}, which alone may change it.`,
      );
    }
    return secret;
  }

  async create(
    request: SecretValue & {
      name: string;
      region: string;
      token?: string | undefined;
      description?: string | undefined;
      tags?: Secret['tags'] | undefined;
      owner?: string | undefined;
    },
  ): Promise<{ secret: Secret; version: Version | undefined }> {
    const { name } = request;
    if (!/^[\w/+=.@!-]{1,512}$/.test(name) || (name.includes('!') && request.owner === undefined)) {
      throw fault(
        InvalidParameterException$,
        'Invalid name. Must be a valid name containing alphanumeric characters, or any of the following: -/_+=.@',
      );
    }
    const existing = this.find(name);
    if (existing?.deleteAt !== undefined) {
      throw fault(
        InvalidRequestException$,
        "You can't create this secret because a secret with this name is already scheduled for deletion.",
      );
    }
    if (existing) {
      const repeated = existing.versions.find(({ id }) => id === request.token);
      if (repeated && sameValue(repeated, request)) return { secret: existing, version: repeated };
      throw fault(
        ResourceExistsException$,
        `The operation failed because the secret ${name} already exists.`,
      );
    }
    const now = this.#clock();
    const secret: Secret = {
      arn: `arn:aws:secretsmanager:${request.region}:${accountId}:secret:${name}-${suffix()}`,
      name,
      description: request.description,
      tags: request.tags ?? [],
      owner: request.owner,
      createdAt: now,
      changedAt: now,
      versions: [],
    };
    const version = hasValue(request)
      ? this.#addVersion(secret, request, request.token, ['AWSCURRENT'])
      : undefined;
    this.#secrets[name] = secret;
    await this.#save();
    return { secret, version };
  }

  /** Adds a version, or answers the one that this token already made with the same value. */
  async put(secret: Secret, value: SecretValue, token?: string, stages = ['AWSCURRENT']): Promise<Version> {
    const repeated = secret.versions.find(({ id }) => id === token);
    if (repeated && !sameValue(repeated, value)) {
      throw fault(
        ResourceExistsException$,
        `You can't use ClientRequestToken ${token} because that value is already in use for a version of secret ${secret.arn}.`,
      );
    }
    const version = repeated ?? this.#addVersion(secret, value, token, stages);
    await this.#save();
    return version;
  }

  value(secret: Secret, versionId?: string, stage?: string): Version {
    const wanted = stage ?? (versionId === undefined ? 'AWSCURRENT' : undefined);
    const version = secret.versions.find((candidate) =>
      versionId === undefined ? candidate.stages.includes(wanted!) : candidate.id === versionId,
    );
    if (!version) {
      const what = versionId === undefined ? `staging label: ${wanted}` : `VersionId: ${versionId}`;
      throw fault(
        ResourceNotFoundException$,
        `Secrets Manager can't find the specified secret value for ${what}`,
      );
    }
    if (stage !== undefined && !version.stages.includes(stage)) {
      throw fault(
        InvalidRequestException$,
        'You provided a VersionStage that is not associated to the provided VersionId.',
      );
    }
    return version;
  }

  async change(secret: Secret, edit: (secret: Secret) => void): Promise<void> {
    edit(secret);
    secret.changedAt = this.#clock();
    await this.#save();
  }

  async remove(secret: Secret): Promise<void> {
    delete this.#secrets[secret.name];
    await this.#save();
  }

  #addVersion(secret: Secret, value: SecretValue, token: string | undefined, stages: string[]): Version {
    if (!hasValue(value) || (value.SecretString !== undefined && value.SecretBinary !== undefined)) {
      throw fault(InvalidParameterException$, 'You must provide either SecretString or SecretBinary.');
    }
    if (token !== undefined && (token.length < 32 || token.length > 64)) {
      throw fault(InvalidParameterException$, 'ClientRequestToken must be 32-64 characters long.');
    }
    const binary =
      value.SecretBinary === undefined ? undefined : Buffer.from(value.SecretBinary).toString('base64');
    if (Buffer.byteLength(value.SecretString ?? binary ?? '') > 65_536) {
      throw fault(InvalidParameterException$, 'The secret value is longer than 65536 bytes.');
    }
    // The first version is current, whatever it is called.
    const given = secret.versions.length === 0 ? [...new Set(['AWSCURRENT', ...stages])] : stages;
    const previous = secret.versions.find((version) => version.stages.includes('AWSCURRENT'));
    for (const version of secret.versions) {
      const taken = previous && given.includes('AWSCURRENT') ? [...given, 'AWSPREVIOUS'] : given;
      version.stages = version.stages.filter((stage) => !taken.includes(stage));
    }
    if (previous && given.includes('AWSCURRENT')) previous.stages.push('AWSPREVIOUS');
    const version: Version = {
      id: token ?? randomUUID(),
      string: value.SecretString,
      binary,
      stages: given,
      createdAt: this.#clock(),
    };
    secret.versions.push(version);
    // AWS, too, drops versions without a stage past a hundred.
    const loose = secret.versions.filter(({ stages }) => stages.length === 0);
    if (loose.length > 100) secret.versions.splice(secret.versions.indexOf(loose[0]!), 1);
    secret.changedAt = this.#clock();
    return version;
  }
}

export const hasValue = (value: SecretValue): boolean =>
  value.SecretString !== undefined || value.SecretBinary !== undefined;

function sameValue(version: Version, value: SecretValue): boolean {
  const binary =
    value.SecretBinary === undefined ? undefined : Buffer.from(value.SecretBinary).toString('base64');
  return version.string === value.SecretString && version.binary === binary;
}

/** Six characters, as in every secret's ARN. */
function suffix(): string {
  const letters = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789';
  return Array.from(randomBytes(6), (byte) => letters[byte % letters.length]).join('');
}
