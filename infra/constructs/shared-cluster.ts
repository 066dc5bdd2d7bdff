import { Aws, Duration, RemovalPolicy, Stack, Validations } from 'aws-cdk-lib';
import { InstanceType } from 'aws-cdk-lib/aws-ec2';
import { ManagedPolicy, Role, ServicePrincipal } from 'aws-cdk-lib/aws-iam';
import { LogGroup } from 'aws-cdk-lib/aws-logs';
import {
  AuroraPostgresEngineVersion,
  CaCertificate,
  type CfnDBCluster,
  type CfnDBInstance,
  ClusterInstance,
  Credentials,
  DatabaseCluster,
  DatabaseClusterEngine,
  DatabaseInstance,
  DatabaseInstanceEngine,
  type IEngine,
  ParameterGroup,
  PostgresEngineVersion,
  ProxyTarget,
  StorageType,
  SubnetGroup,
} from 'aws-cdk-lib/aws-rds';
import { Construct } from 'constructs';
import type { Settings } from '../settings.ts';
import type { Network } from './tenancy-function.ts';

/** Used by the installation once, to make tenancy_provisioner. */
const masterLogin = 'tenantry_master';

/** What every server says to itself: TLS only, and no value of a statement in the log. */
export const serverParameters = {
  'rds.force_ssl': '1',
  ssl_min_protocol_version: 'TLSv1.2',
  password_encryption: 'scram-sha-256',
  // Signed contexts and tenants' values travel as parameters.
  log_parameter_max_length: '0',
  log_parameter_max_length_on_error: '0',
  // Logs the statements of no one, however the default changes.
  log_statement: 'none',
} as const;

export interface SharedClusterProps {
  readonly cluster: Settings['cluster'];
  readonly logRetentionDays: Settings['logRetentionDays'];
  readonly network: Network;
}

/** The server of the catalog and of all homes that have none of their own: Aurora Serverless v2, or an RDS instance. */
export class SharedCluster extends Construct {
  readonly host: string;
  /** `cluster-…` or `db-…`, which IAM logins are granted for. */
  readonly resourceId: string;
  readonly masterSecret: string;
  readonly target: ProxyTarget;
  /** The dimension of its metrics, and its value. */
  readonly dimension: Record<string, string>;
  readonly server: DatabaseCluster | DatabaseInstance;

  constructor(scope: Construct, id: string, props: SharedClusterProps) {
    super(scope, id);
    const { cluster, network } = props;
    const subnetGroup = new SubnetGroup(this, 'Subnets', {
      vpc: network.vpc,
      vpcSubnets: network.subnets,
      description: 'The shared cluster of tenantry',
    });
    // Named, so that its log can be made before it, with an end to what is kept.
    const identifier = `${Stack.of(this).stackName.toLowerCase()}-shared`;
    const kind = cluster.kind === 'aurora' ? 'cluster' : 'instance';
    // An upgrade of Aurora writes into the server's own.
    const logs = { Log: 'postgresql', ...(kind === 'instance' && { UpgradeLog: 'upgrade' }) };
    const groups = Object.entries(logs).map(
      ([id, name]) =>
        new LogGroup(this, id, {
          logGroupName: `/aws/rds/${kind}/${identifier}/${name}`,
          retention: props.logRetentionDays,
          removalPolicy: RemovalPolicy.DESTROY,
        }),
    );
    const monitoring = new Role(this, 'Monitoring', {
      assumedBy: new ServicePrincipal('monitoring.rds.amazonaws.com', {
        conditions: { StringEquals: { 'aws:SourceAccount': Aws.ACCOUNT_ID } },
      }),
      managedPolicies: [
        ManagedPolicy.fromAwsManagedPolicyName('service-role/AmazonRDSEnhancedMonitoringRole'),
      ],
    });
    Validations.of(monitoring).acknowledge({
      id: 'AwsSolutions-IAM4[Policy::arn:<AWS::Partition>:iam::aws:policy/service-role/AmazonRDSEnhancedMonitoringRole]',
      reason: 'RDS’s own: it may write to the one log group that RDS has for these figures.',
    });
    const common = {
      subnetGroup,
      vpc: network.vpc,
      vpcSubnets: network.subnets,
      securityGroups: [network.fixedGroup(this, 'cluster')],
      credentials: Credentials.fromUsername(masterLogin),
      // RDS keeps and rotates it.
      manageMasterUserPassword: true,
      iamAuthentication: true,
      storageEncrypted: true,
      deletionProtection: cluster.deletionProtection,
      removalPolicy: RemovalPolicy.SNAPSHOT,
      copyTagsToSnapshot: true,
      // The settings name an exact version.
      autoMinorVersionUpgrade: false,
      // What the machine does beside the database, which CloudWatch's own figures of a server don't tell.
      monitoringInterval: Duration.minutes(1),
      monitoringRole: monitoring,
      cloudwatchLogsExports: Object.values(logs),
    };
    const parameterGroup = (engine: IEngine) =>
      new ParameterGroup(this, 'Parameters', {
        engine,
        description: 'The shared cluster of tenantry',
        parameters: { ...serverParameters, max_connections: String(cluster.maxConnections) },
      });
    const backup = { retention: Duration.days(cluster.backupDays) };
    if (cluster.kind === 'aurora') {
      const engine = DatabaseClusterEngine.auroraPostgres({
        version: AuroraPostgresEngineVersion.of(cluster.engineVersion, '17'),
      });
      const instance = {
        caCertificate: CaCertificate.RDS_CA_RSA2048_G1,
        publiclyAccessible: false,
        enablePerformanceInsights: true,
        autoMinorVersionUpgrade: false,
      };
      const aurora = new DatabaseCluster(this, 'Cluster', {
        ...common,
        clusterIdentifier: identifier,
        engine,
        parameterGroup: parameterGroup(engine),
        serverlessV2MinCapacity: cluster.minCapacity,
        serverlessV2MaxCapacity: cluster.maxCapacity,
        writer: ClusterInstance.serverlessV2('Writer', instance),
        readers: cluster.standby
          ? [ClusterInstance.serverlessV2('Standby', { ...instance, scaleWithWriter: true })]
          : [],
        backup,
      });
      const resource = aurora.node.defaultChild as CfnDBCluster;
      this.server = aurora;
      this.host = aurora.clusterEndpoint.hostname;
      this.resourceId = aurora.clusterResourceIdentifier;
      this.masterSecret = resource.attrMasterUserSecretSecretArn;
      this.target = ProxyTarget.fromCluster(aurora);
      this.dimension = { DBClusterIdentifier: aurora.clusterIdentifier };
    } else {
      const engine = DatabaseInstanceEngine.postgres({
        version: PostgresEngineVersion.of(cluster.engineVersion, '17'),
      });
      const instance = new DatabaseInstance(this, 'Instance', {
        ...common,
        instanceIdentifier: identifier,
        engine,
        parameterGroup: parameterGroup(engine),
        instanceType: new InstanceType(cluster.instanceClass.replace(/^db\./, '')),
        allocatedStorage: cluster.storageGb,
        storageType: StorageType.GP3,
        multiAz: cluster.standby,
        caCertificate: CaCertificate.RDS_CA_RSA2048_G1,
        backupRetention: backup.retention,
        enablePerformanceInsights: true,
        publiclyAccessible: false,
      });
      const resource = instance.node.defaultChild as CfnDBInstance;
      this.server = instance;
      this.host = instance.instanceEndpoint.hostname;
      this.resourceId = resource.attrDbiResourceId;
      this.masterSecret = resource.attrMasterUserSecretSecretArn;
      this.target = ProxyTarget.fromInstance(instance);
      this.dimension = { DBInstanceIdentifier: instance.instanceIdentifier };
    }
    this.server.node.addDependency(...groups);
    Validations.of(this.server).acknowledge({
      id: 'AwsSolutions-RDS11',
      reason:
        'Who reaches the port is said by security groups, one by name; another number would hide nothing.',
    });
    if (cluster.kind === 'instance' && !cluster.standby)
      Validations.of(this.server).acknowledge({
        id: 'AwsSolutions-RDS3',
        reason: 'The settings ask for one server alone (cluster.standby: false).',
      });
    if (!cluster.deletionProtection)
      Validations.of(this.server).acknowledge({
        id: 'AwsSolutions-RDS10',
        reason:
          'The settings lift it (cluster.deletionProtection: false), as before the stacks are destroyed.',
      });
  }
}
