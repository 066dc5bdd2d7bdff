import { readFileSync } from 'node:fs';
import { beforeAll, describe, expect, it } from 'vitest';
import { functions } from '../../infra/functions.ts';
import { machineFiles } from '../../infra/machines.ts';
import { readSettings } from '../../infra/settings.ts';
import { Assembly, type Resource } from './assembly.ts';
import { synthesize, variants } from './synthesize.ts';

/** What DEPLOYING.md calls that which outlives its stack. */
const remains: Readonly<Record<string, RegExp>> = {
  'AWS::Logs::LogGroup': /functions', state machines', access and execution logs .*flow log/,
  'AWS::SecretsManager::Secret': /two signing keys/,
  'AWS::S3::Bucket': /bucket of exports/,
  'AWS::KMS::Key': /own KMS key/,
  'AWS::RDS::DBCluster': /final snapshot of the cluster/,
  'AWS::RDS::DBInstance': /final snapshot of the cluster/,
  'AWS::ApiGateway::Account': /account-wide role/,
  'AWS::IAM::Role': /account-wide role/,
};

/** What a security reviewer asks of every resource of a kind, in every deployment that settings can make. */
describe.each(Object.entries(variants))('%s', (_, changes) => {
  const settings = readSettings(changes);
  let assembly: Assembly;
  beforeAll(() => {
    assembly = new Assembly(synthesize(changes));
  });
  const every = (type: string, check: (resource: Resource) => void) => {
    const found = assembly.of(type);
    expect(found.length, type).toBeGreaterThan(0);
    for (const resource of found) check(resource);
  };

  it('has a function for every row of the manifest, with the house’s defaults', () => {
    for (const { name, timeoutSeconds, memoryMb, inVpc } of functions) {
      const id = new RegExp(`^${name.replaceAll('-', '')}Function`, 'i');
      const { properties } = assembly.only('AWS::Lambda::Function', id);
      expect(properties).toMatchObject({ Timeout: timeoutSeconds, MemorySize: memoryMb });
      expect('VpcConfig' in properties).toBe(inVpc);
      expect(properties.Environment.Variables.NODE_EXTRA_CA_CERTS !== undefined).toBe(inVpc);
    }
    every('AWS::Lambda::Function', ({ properties }) =>
      expect(properties).toMatchObject({
        Runtime: 'nodejs24.x',
        Architectures: ['arm64'],
        TracingConfig: { Mode: 'Active' },
        LoggingConfig: { LogFormat: 'JSON', LogGroup: expect.any(String) },
      }),
    );
    // The manifest's, and the library's own: between CloudFormation and the installation, and for the VPC's default group.
    const libraries = settings.network.existing ? 1 : 2;
    expect(assembly.of('AWS::Lambda::Function')).toHaveLength(functions.length + libraries);
  });

  it('gives a function its rights before it is made: Lambda tries those for its network then', () => {
    for (const { name } of functions.filter(({ inVpc }) => inVpc)) {
      const id = new RegExp(`^${name.replaceAll('-', '')}Function`, 'i');
      const { properties, dependsOn, stack } = assembly.only('AWS::Lambda::Function', id);
      const role = properties.Role.replace('.Arn>', '>');
      const policies = assembly
        .of('AWS::IAM::Policy')
        .filter((policy) => policy.stack === stack && policy.properties.Roles.includes(role));
      expect(policies.length, name).toBeGreaterThan(0);
      for (const policy of policies) expect(dependsOn, name).toContain(policy.id);
    }
  });

  it('leaves nothing in the default security group of its own VPC, by a function that can do no more', () => {
    const closed = assembly.of('Custom::VpcRestrictDefaultSG');
    expect(closed).toHaveLength(settings.network.existing ? 0 : 1);
    if (settings.network.existing) return;
    const { properties } = assembly.only('AWS::IAM::Role', /^CustomVpcRestrictDefaultSG/);
    expect(properties.ManagedPolicyArns).toEqual([]);
    const statements = properties.Policies.flatMap(
      (policy: { PolicyDocument: { Statement: object[] } }) => policy.PolicyDocument.Statement,
    );
    const actions = statements.flatMap(({ Action }: { Action: string[] }) => Action);
    expect(actions.sort()).toEqual([
      'ec2:AuthorizeSecurityGroupEgress',
      'ec2:AuthorizeSecurityGroupIngress',
      'ec2:RevokeSecurityGroupEgress',
      'ec2:RevokeSecurityGroupIngress',
      'logs:CreateLogStream',
      'logs:PutLogEvents',
      'xray:PutTelemetryRecords',
      'xray:PutTraceSegments',
    ]);
    expect(statements[0]).toMatchObject({
      Resource: [expect.stringMatching(/security-group\/<Vpc.*DefaultSecurityGroup>$/)],
    });
  });

  it('keeps what the clock called in vain, encrypted, and tries none of it twice', () => {
    every('AWS::SQS::Queue', ({ properties, id }) => {
      expect(properties.SqsManagedSseEnabled).toBe(true);
      const policy = assembly
        .of('AWS::SQS::QueuePolicy')
        .find((each) => each.properties.Queues.includes(`<${id}>`))!;
      expect(policy.properties.PolicyDocument.Statement[0]).toMatchObject({
        Effect: 'Deny',
        Condition: { Bool: { 'aws:SecureTransport': 'false' } },
      });
    });
    const scheduled = functions.filter((row) => 'scheduleMinutes' in row);
    expect(assembly.of('AWS::Lambda::EventInvokeConfig')).toHaveLength(scheduled.length);
    every('AWS::Lambda::EventInvokeConfig', ({ properties }) =>
      expect(properties).toMatchObject({
        MaximumRetryAttempts: 0,
        MaximumEventAgeInSeconds: 60,
        DestinationConfig: { OnFailure: { Destination: expect.stringMatching(/\.Arn>$/) } },
      }),
    );
  });

  it('keeps environments for those that people and agents reach, as the settings say', () => {
    const { reserved, reservedFor } = settings.concurrency;
    for (const [name, wanted] of Object.entries({ ...reservedFor, mcp: reserved })) {
      const { properties } = assembly.only('AWS::Lambda::Function', new RegExp(`^${name}Function`));
      expect(properties.ReservedConcurrentExecutions, name).toBe(wanted);
    }
  });

  it('keeps every log for as long as the settings say', () => {
    every('AWS::Logs::LogGroup', ({ properties }) =>
      expect(properties.RetentionInDays).toBe(settings.logRetentionDays),
    );
    const groups = new Set(assembly.of('AWS::Logs::LogGroup').map(({ id }) => `<${id}>`));
    every('AWS::Lambda::Function', ({ properties }) =>
      expect(groups).toContain(properties.LoggingConfig.LogGroup),
    );
  });

  it('lets machines write their logs by the one entry that the account’s policy needs for all of them', () => {
    every('AWS::StepFunctions::StateMachine', ({ properties }) => {
      const [{ CloudWatchLogsLogGroup: to }] = properties.LoggingConfiguration.Destinations;
      const log = assembly.of('AWS::Logs::LogGroup').find(({ id }) => to.LogGroupArn === `<${id}.Arn>`)!;
      // It stays when the stack goes, and the next stack's must not collide with it.
      expect(log.properties.LogGroupName).toMatch(
        /^\/aws\/vendedlogs\/states\/tenantry-[a-z-]+-id-of-tenantrycontrol$/,
      );
    });
  });

  it('makes the log of each stage’s failures before API Gateway would make it', () => {
    every('AWS::ApiGateway::Stage', ({ properties, dependsOn }) => {
      const name = `API-Gateway-Execution-Logs_${properties.RestApiId}/${properties.StageName}`;
      const log = assembly.of('AWS::Logs::LogGroup').find((each) => each.properties.LogGroupName === name);
      expect(dependsOn).toContain(log?.id);
    });
  });

  it('encrypts and backs up the shared server, lets nobody delete it, and logs people in by IAM', () => {
    const server =
      settings.cluster.kind === 'aurora'
        ? assembly.only('AWS::RDS::DBCluster', /./)
        : assembly.only('AWS::RDS::DBInstance', /./);
    expect(server.properties).toMatchObject({
      StorageEncrypted: true,
      DeletionProtection: true,
      BackupRetentionPeriod: 14,
      EnableIAMDatabaseAuthentication: true,
      ManageMasterUserPassword: true,
      EnableCloudwatchLogsExports:
        settings.cluster.kind === 'aurora' ? ['postgresql'] : ['postgresql', 'upgrade'],
      CopyTagsToSnapshot: true,
      EngineVersion: settings.cluster.engineVersion,
      AutoMinorVersionUpgrade: false,
    });
    expect(server.properties).not.toHaveProperty('MasterUserPassword');
    expect(server.deletionPolicy).toBe('Snapshot');
    every('AWS::RDS::DBInstance', ({ properties }) =>
      expect(properties).toMatchObject({
        PubliclyAccessible: false,
        EnablePerformanceInsights: true,
        AutoMinorVersionUpgrade: false,
        MonitoringInterval: 60,
        MonitoringRoleArn: expect.stringMatching(/^<SharedMonitoring.*\.Arn>$/),
        CACertificateIdentifier: 'rds-ca-rsa2048-g1',
      }),
    );
    const servers = assembly.of('AWS::RDS::DBInstance');
    if (settings.cluster.kind === 'aurora') expect(servers).toHaveLength(settings.cluster.standby ? 2 : 1);
    else
      expect(servers[0]!.properties).toMatchObject({
        MultiAZ: settings.cluster.standby,
        // gp2, the library's default, has 3 IOPS a GB: 300 with 100 GB, where this has 3,000.
        StorageType: 'gp3',
      });
  });

  it('puts what rests under a key of its own where the settings say so: all of it', () => {
    const key = assembly.of('AWS::KMS::Key').find(({ id }) => id.startsWith('OwnKey'));
    expect(key !== undefined).toBe(settings.ownKey);
    if (key === undefined) return;
    expect(key).toMatchObject({ deletionPolicy: 'Retain', properties: { EnableKeyRotation: true } });
    const arn = `<${key.id}.Arn>`;
    const server = settings.cluster.kind === 'aurora' ? 'AWS::RDS::DBCluster' : 'AWS::RDS::DBInstance';
    for (const type of ['AWS::Logs::LogGroup', 'AWS::SecretsManager::Secret', server])
      every(type, ({ properties }) => expect(properties.KmsKeyId).toBe(arn));
    every(server, ({ properties }) => expect(properties.MasterUserSecret).toEqual({ KmsKeyId: arn }));
    every('AWS::RDS::DBInstance', ({ properties }) =>
      expect(properties.PerformanceInsightsKMSKeyId).toBe(arn),
    );
    every('AWS::S3::Bucket', ({ properties }) =>
      expect(JSON.stringify(properties.BucketEncryption)).toContain(arn),
    );
    const { properties } = assembly.only('AWS::Lambda::Function', /^provisiontenantFunction/);
    expect(JSON.parse(properties.Environment.Variables.INSTANCE)).toMatchObject({ kmsKeyId: arn });
  });

  it('forces TLS and keeps parameters out of the log on every server', () => {
    const groups = [
      ...assembly.of('AWS::RDS::DBClusterParameterGroup'),
      ...assembly.of('AWS::RDS::DBParameterGroup'),
    ];
    expect(groups).toHaveLength(2);
    for (const { properties } of groups)
      expect(properties.Parameters).toMatchObject({
        'rds.force_ssl': '1',
        log_parameter_max_length: '0',
        log_parameter_max_length_on_error: '0',
      });
    expect(assembly.only('AWS::RDS::DBParameterGroup', /^Dedicated/).properties.Parameters).toMatchObject({
      idle_session_timeout: '60000',
      max_connections: String(settings.dedicated.maxConnections),
    });
  });

  it('has a proxy that believes IAM alone, on both sides, and gives up waiting after 3 s', () => {
    expect(assembly.only('AWS::RDS::DBProxy', /./).properties).toMatchObject({
      DefaultAuthScheme: 'IAM_AUTH',
      RequireTLS: true,
      DebugLogging: false,
    });
    expect(assembly.only('AWS::RDS::DBProxy', /./).properties).not.toHaveProperty('Auth');
    expect(
      assembly.only('AWS::RDS::DBProxyTargetGroup', /./).properties.ConnectionPoolConfigurationInfo,
    ).toEqual({
      ConnectionBorrowTimeout: 3,
      MaxConnectionsPercent: settings.cluster.proxyPercent,
      MaxIdleConnectionsPercent: 25,
    });
  });

  it('is installed when the proxy has made its login, which is to be let in', () => {
    const { dependsOn } = assembly.only('Custom::TenantryInstallation', /./);
    expect(dependsOn).toContain(assembly.only('AWS::RDS::DBProxyTargetGroup', /./).id);
  });

  it('lets each function reach what it may use, and nothing in from outside', () => {
    const name = (id: string) => id.replace(/^<|group[0-9A-F]{8}.*$/g, '');
    const rules = assembly.of('AWS::EC2::SecurityGroupIngress').map(({ properties }) => {
      const { GroupId, SourceSecurityGroupId, FromPort } = properties;
      return `${name(SourceSecurityGroupId)} → ${name(GroupId)}:${FromPort}`;
    });
    const there = settings.network.existing?.endpointSecurityGroupId;
    const endpoints = there ? `${there}:443` : 'endpoints:443';
    expect(rules.sort()).toEqual(
      [
        'mcp → proxy:5432',
        'mcp → dedicated:5432',
        'admin → cluster:5432',
        'admin → dedicated:5432',
        'provisiontenant → cluster:5432',
        'provisiontenant → dedicated:5432',
        'install → cluster:5432',
        'migratetenants → cluster:5432',
        'migratetenants → dedicated:5432',
        'movetenant → cluster:5432',
        'movetenant → dedicated:5432',
        'batchmoves → cluster:5432',
        'offboardtenant → cluster:5432',
        'offboardtenant → dedicated:5432',
        'transfertenant → cluster:5432',
        'transfertenant → dedicated:5432',
        'healthcanary → proxy:5432',
        'healthcanary → cluster:5432',
        'healthcanary → dedicated:5432',
        'health → proxy:5432',
        'proxy → cluster:5432',
        ...[
          'mcp',
          'admin',
          'provisiontenant',
          'install',
          'migratetenants',
          'movetenant',
          'batchmoves',
          'offboardtenant',
          'transfertenant',
          'healthcanary',
        ].map((from) => `${from} → ${endpoints}`),
      ].sort(),
    );
    every('AWS::EC2::SecurityGroup', ({ properties }) => {
      expect(properties.SecurityGroupIngress ?? []).toEqual([]);
      // S3 is a route and no address; its endpoint is the only way that leads out of these subnets.
      const isToS3 = properties.GroupDescription === 'tenantry transfer-tenant';
      for (const { CidrIp, FromPort } of properties.SecurityGroupEgress ?? [])
        expect([CidrIp, FromPort]).toEqual(isToS3 ? ['0.0.0.0/0', 443] : ['255.255.255.255/32', 252]);
    });
    for (const { properties } of assembly.of('AWS::EC2::SecurityGroupEgress'))
      expect(properties).not.toHaveProperty('CidrIp');
  });

  it('has no way out, and endpoints for exactly the services that functions call', () => {
    for (const type of ['AWS::EC2::NatGateway', 'AWS::EC2::InternetGateway', 'AWS::EC2::Route'])
      expect(assembly.of(type)).toEqual([]);
    const made = assembly.of('AWS::EC2::VPCEndpoint').map(({ properties }) => {
      expect(properties.PolicyDocument.Statement).toEqual([
        expect.objectContaining({
          Condition: { StringEquals: { 'aws:PrincipalAccount': '111122223333' } },
        }),
      ]);
      return properties.ServiceName.split('.').at(-1);
    });
    const there = settings.network.existing?.endpointsThere ?? [];
    expect([...made, ...there].sort()).toEqual(['lambda', 'rds', 's3', 'secretsmanager', 'states']);
    const group = settings.network.existing?.endpointSecurityGroupId ?? expect.stringMatching(/^<endpoints/);
    for (const { properties } of assembly.of('AWS::EC2::VPCEndpoint'))
      if (properties.VpcEndpointType === 'Interface')
        expect(properties).toMatchObject({ SecurityGroupIds: [group], PrivateDnsEnabled: true });
  });

  it('runs every state machine as its file has it, standard, logged and traced', () => {
    expect(assembly.of('AWS::StepFunctions::StateMachine')).toHaveLength(machineFiles.length);
    every('AWS::StepFunctions::StateMachine', ({ properties }) => {
      expect(properties).toMatchObject({
        StateMachineType: 'STANDARD',
        TracingConfiguration: { Enabled: true },
        LoggingConfiguration: { Level: 'ALL', IncludeExecutionData: false },
        DefinitionS3Location: { Key: expect.stringMatching(/^[0-9a-f]{64}\.json$/) },
      });
      const { Partition, ...lambdas } = properties.DefinitionSubstitutions;
      expect(Partition).toBe('aws');
      for (const arn of Object.values(lambdas)) expect(arn).toMatch(/^<.*\.Arn>$/);
    });
  });

  it('signs every request of the admin API, and lets no token into a log', () => {
    const admin = assembly.of('AWS::ApiGateway::Method').filter(({ stack }) => stack === 'TenantryControl');
    expect(admin.map(({ properties }) => properties.AuthorizationType)).toEqual(['AWS_IAM']);
    every('AWS::ApiGateway::Stage', ({ properties }) => {
      for (const method of properties.MethodSettings) expect(method.DataTraceEnabled).toBe(false);
      expect(properties.AccessLogSetting.Format).not.toMatch(/header|querystring|body|override/i);
    });
  });

  it('stands behind a firewall that limits tokens and addresses, and logs neither token nor query', () => {
    const { properties } = assembly.only('AWS::WAFv2::WebACL', /./);
    expect(properties.Rules.map((rule: { Name: string }) => rule.Name)).toEqual([
      'per-address',
      'per-token',
      'AWSManagedRulesAmazonIpReputationList',
    ]);
    for (const { Action } of properties.Rules.slice(0, 2))
      expect(Action.Block.CustomResponse).toMatchObject({
        ResponseCode: 429,
        ResponseHeaders: [{ Name: 'Retry-After', Value: '60' }],
        CustomResponseBodyKey: Object.keys(properties.CustomResponseBodies)[0],
      });
    // The authorizer takes any number of spaces and "bearer" in any case: the same token all the same.
    const [key] = properties.Rules[1].Statement.RateBasedStatement.CustomKeys;
    expect(key.Header.TextTransformations.map(({ Type }: { Type: string }) => Type)).toEqual([
      'COMPRESS_WHITE_SPACE',
      'LOWERCASE',
    ]);
    for (const { VisibilityConfig } of properties.Rules)
      expect(VisibilityConfig.SampledRequestsEnabled).toBe(false);
    const { RedactedFields } = assembly.only('AWS::WAFv2::LoggingConfiguration', /./).properties;
    expect(JSON.stringify(RedactedFields)).toMatch(/authorization.*QueryString/);
    // Of what is blocked the log tells the values that were counted, too: here the token.
    expect(properties.DataProtectionConfig.DataProtections).toEqual([
      { Field: { FieldType: 'SINGLE_HEADER', FieldKeys: ['authorization'] }, Action: 'SUBSTITUTION' },
    ]);
    expect(assembly.only('AWS::WAFv2::WebACLAssociation', /./).properties.ResourceArn).toMatch(/\/stages\//);
  });

  it('keeps the keys when the stacks go, and gives them no value of its own', () => {
    every('AWS::SecretsManager::Secret', ({ id, properties, deletionPolicy }) => {
      // What the canaries' keys open goes with the stacks.
      expect(deletionPolicy).toBe(id.startsWith('CanaryKeys') ? 'Delete' : 'Retain');
      expect(properties).not.toHaveProperty('SecretString');
      expect(properties).not.toHaveProperty('GenerateSecretString');
    });
  });

  it('leaves, when the stacks go, what DEPLOYING.md lists and nothing else', () => {
    const kept = assembly.resources.filter(({ deletionPolicy }) =>
      /Retain|Snapshot/.test(deletionPolicy ?? ''),
    );
    expect(kept.length).toBeGreaterThan(10);
    const guide = readFileSync('DEPLOYING.md', 'utf8').split('## What stays')[1]!;
    for (const { id, type } of kept) expect(guide, id).toMatch(remains[type] ?? `nothing about ${type}`);
  });

  it('tells each function the name of a secret that is there', () => {
    const names = assembly.of('AWS::SecretsManager::Secret').map(({ properties }) => properties.Name);
    const told = assembly
      .of('AWS::Lambda::Function')
      .flatMap(({ properties }) => Object.entries<string>(properties.Environment?.Variables ?? {}))
      .filter(([variable]) => variable.endsWith('_SECRET'));
    expect(told.length).toBeGreaterThan(functions.length);
    // RDS names the master's itself.
    for (const [variable, name] of told)
      if (variable === 'MASTER_SECRET') expect(name).toMatch(/^<Shared.*\.MasterUserSecret\.SecretArn>$/);
      else expect(names, variable).toContain(name);
  });

  it('installs again when a setting of the installation changes, and brings the authorizer its keys anew', () => {
    expect(assembly.only('Custom::TenantryInstallation', /./).properties).toMatchObject({
      Code: expect.stringMatching(/^[0-9a-f]{64}$/),
      Extensions: settings.extensions.join(','),
      SigningKeyGeneration: String(settings.signingKeyGeneration),
    });
    for (const name of ['install', 'authorizer']) {
      const { properties } = assembly.only('AWS::Lambda::Function', new RegExp(`^${name}Function`, 'i'));
      expect(properties.Environment.Variables).toMatchObject({
        SIGNING_KEY_GENERATION: String(settings.signingKeyGeneration),
      });
    }
  });

  it('puts no secret into an environment variable', () => {
    every('AWS::Lambda::Function', ({ properties }) =>
      expect(JSON.stringify(properties.Environment ?? {})).not.toMatch(
        /password|"d":|resolve:secretsmanager/i,
      ),
    );
  });
});

it('puts the network of its own into the zones that the settings name, and else into the region’s first two', () => {
  const zonesOf = (network: object) =>
    new Assembly(synthesize({ network }))
      .of('AWS::EC2::Subnet')
      .map(({ properties }) => properties.AvailabilityZone);
  expect(zonesOf({})).toEqual(['a', 'b']);
  expect(zonesOf({ zones: ['us-east-1b', 'us-east-1d'] })).toEqual(['us-east-1b', 'us-east-1d']);
});

it('imports what a stack takes from another: CloudFormation asks anew for each value that is read otherwise, one a second', () => {
  const assembly = new Assembly(synthesize());
  expect(assembly.calls('Fn::ImportValue').length).toBeGreaterThan(100);
  expect(assembly.calls('Fn::GetStackOutput')).toEqual([
    expect.objectContaining({ OutputName: expect.stringContaining('ApiKeyJwks') }),
  ]);
});

it('exports what others import until they are deployed again, when settings of a running deployment change', () => {
  const imported = new Assembly(synthesize()).calls('Fn::ImportValue');
  const exported = new Assembly(synthesize(variants['another region, with a domain and issuers']))
    .calls('Export')
    .map((name) => (name as { Name: string }).Name);
  expect(exported).toEqual(expect.arrayContaining([...new Set(imported)]));
});
