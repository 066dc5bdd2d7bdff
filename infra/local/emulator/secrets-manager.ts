import {
  CreateSecret$,
  type CreateSecretCommandInput,
  type CreateSecretCommandOutput,
  DeleteSecret$,
  type DeleteSecretCommandInput,
  type DeleteSecretCommandOutput,
  DescribeSecret$,
  type DescribeSecretCommandInput,
  type DescribeSecretCommandOutput,
  GetSecretValue$,
  type GetSecretValueCommandInput,
  type GetSecretValueCommandOutput,
  InvalidNextTokenException$,
  InvalidParameterException$,
  ListSecrets$,
  type ListSecretsCommandInput,
  type ListSecretsCommandOutput,
  PutSecretValue$,
  type PutSecretValueCommandInput,
  type PutSecretValueCommandOutput,
  RestoreSecret$,
  type RestoreSecretCommandInput,
  type RestoreSecretCommandOutput,
  TagResource$,
  type TagResourceCommandInput,
  UpdateSecret$,
  type UpdateSecretCommandInput,
  type UpdateSecretCommandOutput,
} from '@aws-sdk/client-secrets-manager';
import { hasValue, type Secret, type SecretStore } from './secret-store.ts';
import { fault, notEmulated, operation, type Service } from './service.ts';

type Answer<Output> = Omit<Output, '$metadata'>;

const day = 86_400_000;

export const secretsManager = (store: SecretStore, clock: () => number): Service => ({
  protocol: 'awsJson',
  name: 'secretsmanager',
  xmlNamespace: '',
  operations: [
    operation<CreateSecretCommandInput, Answer<CreateSecretCommandOutput>>(
      CreateSecret$,
      ['Name', 'ClientRequestToken', 'Description', 'SecretString', 'SecretBinary', 'Tags'],
      async (input, { region }) => {
        const { secret, version } = await store.create({
          ...input,
          name: input.Name ?? '',
          region,
          token: input.ClientRequestToken,
          description: input.Description,
          tags: input.Tags?.map(pair),
        });
        return { ARN: secret.arn, Name: secret.name, VersionId: version?.id };
      },
    ),
    operation<GetSecretValueCommandInput, Answer<GetSecretValueCommandOutput>>(
      GetSecretValue$,
      ['SecretId', 'VersionId', 'VersionStage'],
      (input) => {
        const secret = store.live(input.SecretId ?? '');
        const version = store.value(secret, input.VersionId, input.VersionStage);
        return {
          ARN: secret.arn,
          Name: secret.name,
          VersionId: version.id,
          SecretString: version.string,
          SecretBinary: version.binary === undefined ? undefined : Buffer.from(version.binary, 'base64'),
          VersionStages: version.stages,
          CreatedDate: new Date(version.createdAt),
        };
      },
    ),
    operation<PutSecretValueCommandInput, Answer<PutSecretValueCommandOutput>>(
      PutSecretValue$,
      ['SecretId', 'ClientRequestToken', 'SecretString', 'SecretBinary', 'VersionStages'],
      async (input) => {
        const secret = store.writable(input.SecretId ?? '');
        const version = await store.put(secret, input, input.ClientRequestToken, input.VersionStages);
        return { ARN: secret.arn, Name: secret.name, VersionId: version.id, VersionStages: version.stages };
      },
    ),
    operation<UpdateSecretCommandInput, Answer<UpdateSecretCommandOutput>>(
      UpdateSecret$,
      ['SecretId', 'ClientRequestToken', 'Description', 'SecretString', 'SecretBinary'],
      async (input) => {
        const secret = store.writable(input.SecretId ?? '');
        const version = hasValue(input)
          ? await store.put(secret, input, input.ClientRequestToken)
          : undefined;
        if (input.Description !== undefined) {
          await store.change(secret, (stored) => {
            stored.description = input.Description;
          });
        }
        return { ARN: secret.arn, Name: secret.name, VersionId: version?.id };
      },
    ),
    operation<DescribeSecretCommandInput, Answer<DescribeSecretCommandOutput>>(
      DescribeSecret$,
      ['SecretId'],
      (input) => {
        const secret = store.any(input.SecretId ?? '');
        return { ...describe(secret), VersionIdsToStages: stages(secret) };
      },
    ),
    operation<DeleteSecretCommandInput, Answer<DeleteSecretCommandOutput>>(
      DeleteSecret$,
      ['SecretId', 'RecoveryWindowInDays', 'ForceDeleteWithoutRecovery'],
      async (input) => {
        const { SecretId: id = '', RecoveryWindowInDays: days, ForceDeleteWithoutRecovery: force } = input;
        if (force && days !== undefined) {
          throw fault(
            InvalidParameterException$,
            "You can't use ForceDeleteWithoutRecovery in conjunction with RecoveryWindowInDays.",
          );
        }
        if (days !== undefined && (days < 7 || days > 30)) {
          throw fault(
            InvalidParameterException$,
            'The RecoveryWindowInDays value must be between 7 and 30 days (inclusive).',
          );
        }
        if (force) {
          const secret = store.find(id);
          if (secret?.owner !== undefined) store.writable(id);
          // AWS answers success for a secret that never was, too.
          if (secret) await store.remove(secret);
          return { ARN: secret?.arn, Name: secret?.name ?? id, DeletionDate: new Date(clock()) };
        }
        const secret = store.writable(id);
        await store.change(secret, (stored) => {
          stored.deleteAt = clock() + (days ?? 30) * day;
        });
        return { ARN: secret.arn, Name: secret.name, DeletionDate: new Date(secret.deleteAt!) };
      },
    ),
    operation<RestoreSecretCommandInput, Answer<RestoreSecretCommandOutput>>(
      RestoreSecret$,
      ['SecretId'],
      async (input) => {
        const secret = store.any(input.SecretId ?? '');
        await store.change(secret, (stored) => {
          stored.deleteAt = undefined;
        });
        return { ARN: secret.arn, Name: secret.name };
      },
    ),
    operation<ListSecretsCommandInput, Answer<ListSecretsCommandOutput>>(
      ListSecrets$,
      ['MaxResults', 'NextToken', 'Filters', 'IncludePlannedDeletion'],
      (input) => list(store, input),
    ),
    operation<TagResourceCommandInput, undefined>(TagResource$, ['SecretId', 'Tags'], async (input) => {
      const given = (input.Tags ?? []).map(pair);
      await store.change(store.live(input.SecretId ?? ''), (secret) => {
        secret.tags = [...secret.tags.filter(({ Key }) => !given.some((tag) => tag.Key === Key)), ...given];
      });
      return undefined;
    }),
  ],
});

function list(store: SecretStore, input: ListSecretsCommandInput): Answer<ListSecretsCommandOutput> {
  const size = input.MaxResults ?? 100;
  if (size < 1 || size > 100)
    throw fault(InvalidParameterException$, 'MaxResults must be between 1 and 100.');
  const matching = store
    .all()
    .filter((secret) => input.IncludePlannedDeletion || secret.deleteAt === undefined)
    .filter((secret) => (input.Filters ?? []).every(({ Key, Values }) => matches(secret, Key, Values ?? [])))
    .sort((a, b) => b.createdAt - a.createdAt || (a.name < b.name ? -1 : 1));
  // The token names the last secret that was shown.
  const after =
    input.NextToken === undefined ? -1 : matching.findIndex(({ name }) => name === input.NextToken);
  if (input.NextToken !== undefined && after < 0) {
    throw fault(InvalidNextTokenException$, 'The NextToken value is invalid.');
  }
  const page = matching.slice(after + 1, after + 1 + size);
  const more = matching.length > after + 1 + size;
  return {
    SecretList: page.map((secret) => ({ ...describe(secret), SecretVersionsToStages: stages(secret) })),
    NextToken: more ? page.at(-1)!.name : undefined,
  };
}

function matches(secret: Secret, key: string | undefined, values: string[]): boolean {
  if (values.some((value) => value.startsWith('!'))) throw notEmulated('A negated filter');
  const starts = (text: string) => values.some((value) => text.startsWith(value));
  if (key === 'name') return starts(secret.name);
  if (key === 'tag-key') return secret.tags.some((tag) => starts(tag.Key));
  if (key === 'tag-value') return secret.tags.some((tag) => starts(tag.Value));
  throw notEmulated(`Filter ${key}`);
}

function describe(secret: Secret) {
  return {
    ARN: secret.arn,
    Name: secret.name,
    Description: secret.description,
    Tags: secret.tags,
    OwningService: secret.owner,
    CreatedDate: new Date(secret.createdAt),
    LastChangedDate: new Date(secret.changedAt),
    DeletedDate: secret.deleteAt === undefined ? undefined : new Date(secret.deleteAt),
  };
}

const stages = (secret: Secret) =>
  Object.fromEntries(
    secret.versions.filter(({ stages }) => stages.length > 0).map(({ id, stages }) => [id, stages]),
  );

function pair({ Key, Value }: { Key?: string | undefined; Value?: string | undefined }) {
  if (!Key) throw fault(InvalidParameterException$, 'A tag needs a key.');
  return { Key, Value: Value ?? '' };
}
