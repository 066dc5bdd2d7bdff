import {
  AddTagsToResource$,
  type AddTagsToResourceCommandInput,
  CreateDBInstance$,
  type CreateDBInstanceCommandInput,
  type CreateDBInstanceCommandOutput,
  type DBInstance,
  DBInstanceNotFoundFault$,
  DeleteDBInstance$,
  type DeleteDBInstanceCommandInput,
  type DeleteDBInstanceCommandOutput,
  DescribeDBInstances$,
  type DescribeDBInstancesCommandInput,
  type DescribeDBInstancesCommandOutput,
  ListTagsForResource$,
  type ListTagsForResourceCommandInput,
  type ListTagsForResourceCommandOutput,
  ModifyDBInstance$,
  type ModifyDBInstanceCommandInput,
  type ModifyDBInstanceCommandOutput,
  StartDBInstance$,
  type StartDBInstanceCommandInput,
  type StartDBInstanceCommandOutput,
  StopDBInstance$,
  type StopDBInstanceCommandInput,
  type StopDBInstanceCommandOutput,
  type Tag,
} from '@aws-sdk/client-rds';
import type { RdsInstances } from './rds-instances.ts';
import type { Instance } from './rds-state.ts';
import { AwsFault, fault, notEmulated, operation, type Service } from './service.ts';

type Answer<Output> = Omit<Output, '$metadata'>;

/** Without an effect on one machine: kept, and shown by Describe. */
const shownAtCreation = [
  'AllocatedStorage',
  'AutoMinorVersionUpgrade',
  'BackupRetentionPeriod',
  'CACertificateIdentifier',
  'CopyTagsToSnapshot',
  'DBInstanceClass',
  'EngineVersion',
  'KmsKeyId',
  'MaxAllocatedStorage',
  'MultiAZ',
  'PreferredBackupWindow',
  'PreferredMaintenanceWindow',
  'PubliclyAccessible',
  'StorageEncrypted',
  'StorageType',
] as const satisfies readonly (keyof CreateDBInstanceCommandInput & keyof DBInstance)[];

/** The same, but Describe shows them in another form, which nobody here reads. */
const ignoredAtCreation = [
  'DBParameterGroupName',
  'DBSubnetGroupName',
  'EnableIAMDatabaseAuthentication',
  'EnablePerformanceInsights',
  'MasterUserSecretKmsKeyId',
  'PerformanceInsightsKMSKeyId',
  'VpcSecurityGroupIds',
] as const satisfies readonly (keyof CreateDBInstanceCommandInput)[];

const shownAtChange = [
  'AllocatedStorage',
  'BackupRetentionPeriod',
  'DBInstanceClass',
  'MaxAllocatedStorage',
] as const;

export const rds = (instances: RdsInstances): Service => ({
  protocol: 'awsQuery',
  name: 'rds',
  xmlNamespace: 'http://rds.amazonaws.com/doc/2014-10-31/',
  operations: [
    operation<CreateDBInstanceCommandInput, Answer<CreateDBInstanceCommandOutput>>(
      CreateDBInstance$,
      [
        'DBInstanceIdentifier',
        'Engine',
        'DBName',
        'MasterUsername',
        'MasterUserPassword',
        'ManageMasterUserPassword',
        'DeletionProtection',
        'Tags',
        ...shownAtCreation,
        ...ignoredAtCreation,
      ],
      async (input, { region }) => {
        const instance = await instances.create({
          identifier: newIdentifier(input.DBInstanceIdentifier),
          region,
          ...master(input),
          dbName: databaseName(input.DBName),
          tags: (input.Tags ?? []).map(pair),
          deletionProtection: input.DeletionProtection ?? false,
          shown: { ...pick(input, shownAtCreation), ...engine(input) },
        });
        return { DBInstance: describe(instance) };
      },
    ),
    operation<DescribeDBInstancesCommandInput, Answer<DescribeDBInstancesCommandOutput>>(
      DescribeDBInstances$,
      ['DBInstanceIdentifier', 'Filters', 'MaxRecords', 'Marker'],
      (input) => list(instances, input),
    ),
    operation<ModifyDBInstanceCommandInput, Answer<ModifyDBInstanceCommandOutput>>(
      ModifyDBInstance$,
      [
        'DBInstanceIdentifier',
        'ApplyImmediately',
        'DeletionProtection',
        'MasterUserPassword',
        'RotateMasterUserPassword',
        ...shownAtChange,
      ],
      async (input) => {
        const instance = instances.get(input.DBInstanceIdentifier ?? '');
        const shown = pick(input, shownAtChange);
        if (Object.keys(shown).length > 0 && !input.ApplyImmediately) {
          throw notEmulated('A change that waits for the maintenance window (no ApplyImmediately)');
        }
        if (input.MasterUserPassword !== undefined && instance.secretArn !== undefined) {
          throw combination('MasterUserPassword can’t be set while RDS manages the master password.');
        }
        if (input.RotateMasterUserPassword && !(input.ApplyImmediately && instance.secretArn !== undefined)) {
          throw combination(
            'RotateMasterUserPassword needs ApplyImmediately and a password that RDS manages.',
          );
        }
        const changed = await instances.modify(instance.identifier, {
          shown,
          deletionProtection: input.DeletionProtection,
          password: password(input.MasterUserPassword),
          rotate: input.RotateMasterUserPassword,
        });
        return { DBInstance: describe(changed) };
      },
    ),
    operation<StopDBInstanceCommandInput, Answer<StopDBInstanceCommandOutput>>(
      StopDBInstance$,
      ['DBInstanceIdentifier'],
      async (input) => ({ DBInstance: describe(await instances.stop(input.DBInstanceIdentifier ?? '')) }),
    ),
    operation<StartDBInstanceCommandInput, Answer<StartDBInstanceCommandOutput>>(
      StartDBInstance$,
      ['DBInstanceIdentifier'],
      async (input) => ({ DBInstance: describe(await instances.start(input.DBInstanceIdentifier ?? '')) }),
    ),
    operation<DeleteDBInstanceCommandInput, Answer<DeleteDBInstanceCommandOutput>>(
      DeleteDBInstance$,
      ['DBInstanceIdentifier', 'SkipFinalSnapshot', 'FinalDBSnapshotIdentifier', 'DeleteAutomatedBackups'],
      async (input) => {
        const instance = instances.get(input.DBInstanceIdentifier ?? '');
        const { SkipFinalSnapshot: skip, FinalDBSnapshotIdentifier: snapshot } = input;
        if (instance.deletionProtection)
          throw combination(
            'Cannot delete protected DB Instance, please disable deletion protection and try again.',
          );
        if (!skip && snapshot === undefined)
          throw combination('FinalDBSnapshotIdentifier is required unless SkipFinalSnapshot is specified.');
        if (skip && snapshot !== undefined)
          throw combination(
            'FinalDBSnapshotIdentifier can not be specified when SkipFinalSnapshot is specified.',
          );
        const name = snapshot === undefined ? undefined : newIdentifier(snapshot);
        return { DBInstance: describe(await instances.delete(instance.identifier, name)) };
      },
    ),
    operation<ListTagsForResourceCommandInput, Answer<ListTagsForResourceCommandOutput>>(
      ListTagsForResource$,
      ['ResourceName'],
      (input) => ({ TagList: byArn(instances, input.ResourceName).tags }),
    ),
    operation<AddTagsToResourceCommandInput, undefined>(
      AddTagsToResource$,
      ['ResourceName', 'Tags'],
      async (input) => {
        const given = (input.Tags ?? []).map(pair);
        await instances.edit(byArn(instances, input.ResourceName).identifier, (instance) => {
          const kept = instance.tags.filter(({ Key }) => !given.some((tag) => tag.Key === Key));
          instance.tags = [...kept, ...given];
        });
        return undefined;
      },
    ),
  ],
});

function list(
  instances: RdsInstances,
  input: DescribeDBInstancesCommandInput,
): Answer<DescribeDBInstancesCommandOutput> {
  const size = input.MaxRecords ?? 100;
  if (size < 20 || size > 100) throw value('MaxRecords must be between 20 and 100.');
  const wanted = input.DBInstanceIdentifier;
  if (wanted !== undefined) return { DBInstances: [describe(instances.get(wanted))] };
  const names = (input.Filters ?? []).map(({ Name, Values }) => {
    if (Name !== 'db-instance-id') throw notEmulated(`Filter ${Name}`);
    return Values ?? [];
  });
  const matching = instances
    .all()
    .filter(({ identifier }) => names.every((values) => values.includes(identifier)))
    .sort((a, b) => (a.identifier < b.identifier ? -1 : 1));
  const rest = matching.filter(({ identifier }) => input.Marker === undefined || identifier > input.Marker);
  const page = rest.slice(0, size);
  return {
    DBInstances: page.map(describe),
    // The marker names the last instance that was shown.
    Marker: rest.length > size ? page.at(-1)!.identifier : undefined,
  };
}

function describe(instance: Instance): DBInstance {
  const up = !['creating', 'failed'].includes(instance.status);
  return {
    ...instance.shown,
    DBInstanceIdentifier: instance.identifier,
    DBInstanceArn: instance.arn,
    DbiResourceId: instance.resourceId,
    DBInstanceStatus: instance.status,
    Engine: 'postgres',
    MasterUsername: instance.masterUsername,
    DBName: instance.dbName,
    Endpoint: up ? { Address: '127.0.0.1', Port: instance.port } : undefined,
    InstanceCreateTime: up ? new Date(instance.createdAt) : undefined,
    DeletionProtection: instance.deletionProtection,
    TagList: instance.tags,
    MasterUserSecret:
      instance.secretArn === undefined
        ? undefined
        : { SecretArn: instance.secretArn, SecretStatus: 'active' },
  };
}

function newIdentifier(given: string | undefined): string {
  const name = given?.toLowerCase() ?? '';
  if (!/^[a-z](-?[a-z0-9])*$/.test(name) || name.length > 63) {
    throw value(
      'The identifier must begin with a letter, hold only ASCII letters, digits and hyphens, not end with a hyphen nor hold two in a row, and have at most 63 characters.',
    );
  }
  return name;
}

function engine(input: CreateDBInstanceCommandInput): { EngineVersion: string } {
  const version = input.EngineVersion ?? '17';
  if (input.Engine !== 'postgres') throw notEmulated(`Engine ${input.Engine}`);
  if (version.split('.')[0] !== '17') throw notEmulated(`PostgreSQL ${version} (only 17)`);
  if (input.DBInstanceClass === undefined) throw value('DBInstanceClass is required.');
  if (input.AllocatedStorage === undefined) throw value('AllocatedStorage is required.');
  return { EngineVersion: version };
}

function master(input: CreateDBInstanceCommandInput): {
  masterUsername: string;
  pendingPassword: string | undefined;
} {
  const { MasterUsername: name = '', MasterUserPassword: given, ManageMasterUserPassword: managed } = input;
  if (name === 'postgres') throw notEmulated('MasterUsername postgres (here the embedded superuser)');
  if (!/^[A-Za-z][A-Za-z0-9_]{0,62}$/.test(name) || /^(rdsadmin|pg_.*|rds_.*)$/.test(name)) {
    throw value(`MasterUsername ${name} cannot be used.`);
  }
  if (managed && given !== undefined) {
    throw combination('MasterUserPassword can’t be given when ManageMasterUserPassword is set.');
  }
  if (!managed && given === undefined) throw value('MasterUserPassword is required.');
  return { masterUsername: name, pendingPassword: password(given) };
}

function password(given: string | undefined): string | undefined {
  if (given !== undefined && (!/^[!-~]{8,128}$/.test(given) || /[/"@]/.test(given))) {
    throw value('The password must have 8 to 128 printable ASCII characters other than / @ " and space.');
  }
  return given;
}

function databaseName(name: string | undefined): string | undefined {
  if (name === 'postgres') throw notEmulated('DBName postgres, which every instance has');
  if (name !== undefined && !/^[A-Za-z_]\w{0,62}$/.test(name)) throw value(`DBName ${name} cannot be used.`);
  return name;
}

function byArn(instances: RdsInstances, arn: string | undefined): Instance {
  const instance = instances.all().find((candidate) => candidate.arn === arn);
  if (!instance) throw fault(DBInstanceNotFoundFault$, `${arn} not found.`);
  return instance;
}

const pair = ({ Key, Value }: Tag) => ({ Key: Key ?? '', Value: Value ?? '' });
const pick = <T extends object>(from: T, names: readonly (keyof T)[]): Record<string, unknown> =>
  Object.fromEntries(names.filter((name) => from[name] !== undefined).map((name) => [name, from[name]]));

const value = (message: string) => new AwsFault('InvalidParameterValue', message);
const combination = (message: string) => new AwsFault('InvalidParameterCombination', message);
