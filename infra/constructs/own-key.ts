import { ArnFormat, Aws, type IAspect, RemovalPolicy, Stack } from 'aws-cdk-lib';
import { PolicyStatement, ServicePrincipal } from 'aws-cdk-lib/aws-iam';
import { type IKey, Key } from 'aws-cdk-lib/aws-kms';
import { CfnLogGroup } from 'aws-cdk-lib/aws-logs';
import { CfnDBCluster, CfnDBInstance } from 'aws-cdk-lib/aws-rds';
import { CfnBucket } from 'aws-cdk-lib/aws-s3';
import { CfnSecret } from 'aws-cdk-lib/aws-secretsmanager';
import type { Construct, IConstruct } from 'constructs';

/** A key of the deployment's own. It outlives the stacks: without it nobody reads what is left of them. */
export function newOwnKey(scope: Construct): IKey {
  const key = new Key(scope, 'OwnKey', {
    description: 'tenantry: data, secrets, exports and logs at rest',
    enableKeyRotation: true,
    removalPolicy: RemovalPolicy.RETAIN,
  });
  // Other services use it in the name of whoever calls them; CloudWatch Logs writes in its own.
  key.addToResourcePolicy(
    new PolicyStatement({
      principals: [new ServicePrincipal(`logs.${Aws.REGION}.${Aws.URL_SUFFIX}`)],
      actions: ['kms:Encrypt', 'kms:Decrypt', 'kms:ReEncrypt*', 'kms:GenerateDataKey*', 'kms:DescribeKey'],
      resources: ['*'],
      conditions: {
        ArnLike: {
          'kms:EncryptionContext:aws:logs:arn': Stack.of(scope).formatArn({
            service: 'logs',
            resource: '*',
            arnFormat: ArnFormat.NO_RESOURCE_NAME,
          }),
        },
      },
    }),
  );
  return key as IKey;
}

/** Puts everything that rests under that key: what a later construct adds cannot be forgotten. */
export class UnderOwnKey implements IAspect {
  readonly #arn: string;

  constructor(key: IKey) {
    this.#arn = key.keyArn;
  }

  visit(node: IConstruct): void {
    const key = this.#arn;
    if (node instanceof CfnLogGroup || node instanceof CfnSecret) node.kmsKeyId = key;
    if (node instanceof CfnBucket)
      node.bucketEncryption = {
        serverSideEncryptionConfiguration: [
          {
            serverSideEncryptionByDefault: { sseAlgorithm: 'aws:kms', kmsMasterKeyId: key },
            bucketKeyEnabled: true,
          },
        ],
      };
    if (node instanceof CfnDBInstance) node.performanceInsightsKmsKeyId = key;
    // An instance of a cluster has the cluster's storage.
    const isServer =
      node instanceof CfnDBCluster ||
      (node instanceof CfnDBInstance && node.dbClusterIdentifier === undefined);
    if (!isServer) return;
    node.kmsKeyId = key;
    node.masterUserSecret = { kmsKeyId: key };
  }
}
