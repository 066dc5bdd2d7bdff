import type { DBInstance, RDSClient } from '@aws-sdk/client-rds';
import { TenantryError } from '../errors.ts';
import type { TenantId } from '../tenant/tenant.ts';
import { awsFailure, failsAs } from './failure.ts';

/** What every dedicated instance is made of; decided once per deployment. */
export interface InstanceSettings {
  /** e.g. db.t4g.medium */
  readonly instanceClass: string;
  /** The exact version, e.g. 17.10. */
  readonly engineVersion: string;
  readonly storageGb: number;
  /** Forces TLS, keeps parameters out of the log, ends idle sessions. */
  readonly parameterGroup: string;
  readonly subnetGroup: string;
  readonly securityGroups: readonly string[];
  /** Absent: the account's own RDS key. */
  readonly kmsKeyId?: string | undefined;
  readonly certificateAuthority: string;
  readonly backupDays: number;
}

export interface ReadyInstance {
  readonly host: string;
  readonly port: number;
  /** Of the secret in which RDS manages the master's password. */
  readonly masterSecretArn: string;
  readonly masterUsername: string;
}

/** Dedicated instances, each marked with its tenant: nothing without that mark is ever touched. */
export interface Instances {
  /** @throws TenantryError `name_taken`, `instance_quota` */
  create(identifier: string, tenant: TenantId): Promise<void>;
  /** @throws TenantryError `instance_pending`, `instance_failed` */
  ready(identifier: string): Promise<ReadyInstance>;
  /**
   * Starts its deletion; done when there is none of this tenant. `finalSnapshot`: the name under which RDS keeps its data.
   * @throws TenantryError `instance_pending`, `instance_failed`, `name_taken`
   */
  remove(identifier: string, tenant: TenantId, finalSnapshot?: string): Promise<void>;
  /** What RDS says of the instance, on its way out too; undefined when there is none of this tenant. */
  status(identifier: string, tenant: TenantId): Promise<string | undefined>;
}

/** An instance of the account, in whatever state. */
export interface KnownInstance {
  readonly identifier: string;
  /** RDS's own word, e.g. `available`, `stopped`. */
  readonly status: string;
  readonly host: string | undefined;
  readonly port: number | undefined;
  /** Of ours alone. */
  readonly tenant: string | undefined;
}

export const instanceName = (homeId: string) => `tenantry-${homeId.replaceAll('-', '')}`;

const master = 'tenantry_master';
/** The mark of every dedicated instance: nothing without it is created, changed or deleted. */
export const tenantTag = 'tenantry:tenant';
/** RDS takes no final snapshot of what is in one of these. */
const noSnapshot = /^(failed|incompatible-restore|incompatible-network)$/;
/** No status from here leads to `available` by itself. */
const terminal =
  /^(failed|incompatible-.*|storage-full|inaccessible-encryption-credentials.*|restore-error|deleting|stopped|stopping)$/;

/** As far as its storage grows by itself, GB. RDS has 64 TiB at most, and wants a tenth more than there is at first. */
function growsTo(storageGb: number): number | undefined {
  const most = Math.min(storageGb * 10, 65_536);
  return most >= storageGb * 1.1 ? most : undefined;
}

const isOf = (instance: DBInstance, tenant: TenantId): boolean =>
  instance.TagList?.some(({ Key, Value }) => Key === tenantTag && Value === tenant) ?? false;

let loaded: Promise<{ sdk: typeof import('@aws-sdk/client-rds'); client: RDSClient }> | undefined;
const load = () => {
  loaded ??= import('@aws-sdk/client-rds').then((sdk) => ({
    sdk,
    client: new sdk.RDSClient({ maxAttempts: 5 }),
  }));
  return loaded;
};

async function describe(identifier: string): Promise<DBInstance | undefined> {
  const { sdk, client } = await load();
  try {
    const answer = await client.send(
      new sdk.DescribeDBInstancesCommand({ DBInstanceIdentifier: identifier }),
    );
    return answer.DBInstances?.[0];
  } catch (error) {
    if (error instanceof sdk.DBInstanceNotFoundFault) return undefined;
    throw awsFailure('RDS', error);
  }
}

/** For who may look at instances and do nothing to them. */
export const seenInstances: Pick<Instances, 'status'> = {
  async status(identifier, tenant) {
    const instance = await describe(identifier);
    return instance && isOf(instance, tenant) ? (instance.DBInstanceStatus ?? 'unknown') : undefined;
  },
};

export function createInstances(settings: InstanceSettings): Instances {
  return {
    ...seenInstances,

    async create(identifier, tenant) {
      const { sdk, client } = await load();
      const command = new sdk.CreateDBInstanceCommand({
        DBInstanceIdentifier: identifier,
        Engine: 'postgres',
        EngineVersion: settings.engineVersion,
        DBInstanceClass: settings.instanceClass,
        AllocatedStorage: settings.storageGb,
        // One that is full serves nobody.
        MaxAllocatedStorage: growsTo(settings.storageGb),
        MasterUsername: master,
        ManageMasterUserPassword: true,
        DBParameterGroupName: settings.parameterGroup,
        DBSubnetGroupName: settings.subnetGroup,
        VpcSecurityGroupIds: [...settings.securityGroups],
        StorageType: 'gp3',
        KmsKeyId: settings.kmsKeyId,
        MasterUserSecretKmsKeyId: settings.kmsKeyId,
        EnablePerformanceInsights: true,
        PerformanceInsightsKMSKeyId: settings.kmsKeyId,
        CACertificateIdentifier: settings.certificateAuthority,
        // The provisioner logs in by it from the start.
        EnableIAMDatabaseAuthentication: true,
        StorageEncrypted: true,
        DeletionProtection: true,
        PubliclyAccessible: false,
        BackupRetentionPeriod: settings.backupDays,
        CopyTagsToSnapshot: true,
        AutoMinorVersionUpgrade: false,
        Tags: [{ Key: tenantTag, Value: tenant }],
      });
      try {
        await client.send(command);
      } catch (cause) {
        if (cause instanceof sdk.DBInstanceAlreadyExistsFault) {
          const existing = await describe(identifier);
          if (existing && isOf(existing, tenant)) return;
          throw new TenantryError(
            'name_taken',
            `There is an instance ${identifier} without this tenant's tag. Find out whose it is; it is not touched.`,
            { cause },
          );
        }
        if (cause instanceof sdk.InstanceQuotaExceededFault)
          throw new TenantryError(
            'instance_quota',
            'The account may have no more database instances. Ask AWS to raise the quota, then retry this operation.',
            { cause },
          );
        throw awsFailure('RDS', cause);
      }
    },

    async ready(identifier) {
      const instance = await describe(identifier);
      const status = instance?.DBInstanceStatus ?? 'deleted';
      if (instance === undefined || terminal.test(status))
        throw new TenantryError(
          'instance_failed',
          `The instance ${identifier} is ${status} and will not come up.`,
        );
      const { Endpoint, MasterUserSecret, MasterUsername } = instance;
      if (
        status !== 'available' ||
        MasterUserSecret?.SecretStatus !== 'active' ||
        !Endpoint?.Address ||
        !Endpoint.Port
      )
        throw new TenantryError('instance_pending', `The instance ${identifier} is ${status}.`);
      return {
        host: Endpoint.Address,
        port: Endpoint.Port,
        masterSecretArn: MasterUserSecret.SecretArn!,
        masterUsername: MasterUsername!,
      };
    },

    async remove(identifier, tenant, finalSnapshot) {
      const instance = await describe(identifier);
      if (instance === undefined || !isOf(instance, tenant)) return;
      if (instance.DBInstanceStatus === 'deleting') return;
      if (finalSnapshot !== undefined && noSnapshot.test(instance.DBInstanceStatus ?? ''))
        throw new TenantryError(
          'instance_failed',
          `The instance ${identifier} is ${instance.DBInstanceStatus}: RDS takes no final snapshot of it. Repair it, or delete it without one, then run this again.`,
        );
      if (instance.DeletionProtection && instance.DBInstanceStatus === 'stopped')
        throw new TenantryError(
          'instance_failed',
          `The instance ${identifier} is stopped, and RDS lifts its deletion protection only while it runs. Start it, then run this again.`,
        );
      const { sdk, client } = await load();
      try {
        if (instance.DeletionProtection)
          await client.send(
            new sdk.ModifyDBInstanceCommand({
              DBInstanceIdentifier: identifier,
              DeletionProtection: false,
              ApplyImmediately: true,
            }),
          );
        await client.send(
          new sdk.DeleteDBInstanceCommand({
            DBInstanceIdentifier: identifier,
            ...(finalSnapshot === undefined
              ? { SkipFinalSnapshot: true }
              : { FinalDBSnapshotIdentifier: finalSnapshot }),
            DeleteAutomatedBackups: true,
          }),
        );
      } catch (error) {
        if (error instanceof sdk.DBInstanceNotFoundFault) return;
        if (error instanceof sdk.DBSnapshotAlreadyExistsFault)
          throw new TenantryError(
            'name_taken',
            `There is a snapshot ${finalSnapshot} already. Find out what it holds, and delete it or the instance ${identifier}.`,
            { cause: error },
          );
        // Neither while it is being created or changed: the step is tried again until it can be deleted.
        if (error instanceof sdk.InvalidDBInstanceStateFault)
          throw new TenantryError('instance_pending', `The instance ${identifier} can't be deleted yet.`, {
            cause: error,
          });
        throw awsFailure('RDS', error);
      }
    },
  };
}

/** Every instance that RDS shows us. */
export async function listInstances(): Promise<KnownInstance[]> {
  const sdk = await import('@aws-sdk/client-rds');
  const client = new sdk.RDSClient({ maxAttempts: 3 });
  const known: KnownInstance[] = [];
  let Marker: string | undefined;
  do {
    const page = await client
      .send(new sdk.DescribeDBInstancesCommand({ Marker, MaxRecords: 100 }))
      .catch(failsAs('RDS'));
    for (const { DBInstanceIdentifier, DBInstanceStatus, Endpoint, TagList } of page.DBInstances ?? [])
      known.push({
        identifier: DBInstanceIdentifier!,
        status: DBInstanceStatus ?? 'unknown',
        host: Endpoint?.Address,
        port: Endpoint?.Port,
        tenant: TagList?.find(({ Key }) => Key === tenantTag)?.Value,
      });
    Marker = page.Marker;
  } while (Marker !== undefined);
  return known;
}
