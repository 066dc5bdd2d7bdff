import { ArnFormat, RemovalPolicy, Stack } from 'aws-cdk-lib';
import type { Stage } from 'aws-cdk-lib/aws-apigateway';
import { LogGroup } from 'aws-cdk-lib/aws-logs';
import { CfnLoggingConfiguration, CfnWebACL, CfnWebACLAssociation } from 'aws-cdk-lib/aws-wafv2';
import { Construct } from 'constructs';
import { json } from '../endpoint.ts';
import type { Settings } from '../settings.ts';

/**
 * The web application firewall: how many requests may come, and from whom none may. It looks at no body: agents' texts
 * hold what attacks hold, and nothing of ours builds SQL or HTML from them.
 */
export class Firewall extends Construct {
  readonly name: string;

  constructor(scope: Construct, id: string, { stage, settings }: { stage: Stage; settings: Settings }) {
    super(scope, id);
    this.name = Stack.of(this).stackName;
    const { perToken, perAddress } = settings.rateLimit;
    const acl = new CfnWebACL(this, 'Acl', {
      // The dimension of its metrics, which others of the account have too.
      name: this.name,
      scope: 'REGIONAL',
      defaultAction: { allow: {} },
      visibilityConfig: visibility(this.name),
      // What a log's redacted fields leave: an entry also says by which values a rule has counted.
      dataProtectionConfig: {
        dataProtections: [
          { field: { fieldType: 'SINGLE_HEADER', fieldKeys: ['authorization'] }, action: 'SUBSTITUTION' },
        ],
      },
      customResponseBodies: {
        [tooMany]: {
          contentType: 'APPLICATION_JSON',
          content: json('throttled', 'Too many requests: wait and try again.'),
        },
      },
      rules: [
        limit(0, rateRules.perAddress, {
          limit: perAddress,
          evaluationWindowSec: 300,
          aggregateKeyType: 'IP',
        }),
        // One agent in a loop stops itself, not its neighbours behind the same address.
        limit(1, rateRules.perToken, {
          limit: perToken,
          evaluationWindowSec: 300,
          aggregateKeyType: 'CUSTOM_KEYS',
          customKeys: [
            // As the authorizer reads it: however many spaces, in any case.
            {
              header: {
                name: 'authorization',
                textTransformations: [
                  { priority: 0, type: 'COMPRESS_WHITE_SPACE' },
                  { priority: 1, type: 'LOWERCASE' },
                ],
              },
            },
          ],
        }),
        managed(2, 'AWSManagedRulesAmazonIpReputationList'),
      ],
    });
    new CfnWebACLAssociation(this, 'Association', { resourceArn: stage.stageArn, webAclArn: acl.attrArn });
    const log = new LogGroup(this, 'Log', {
      // WAF writes to no group of another name.
      logGroupName: `aws-waf-logs-${this.name}`,
      retention: settings.logRetentionDays,
      removalPolicy: RemovalPolicy.DESTROY,
    });
    new CfnLoggingConfiguration(this, 'Logging', {
      resourceArn: acl.attrArn,
      logDestinationConfigs: [
        Stack.of(this).formatArn({
          service: 'logs',
          resource: 'log-group',
          resourceName: log.logGroupName,
          arnFormat: ArnFormat.COLON_RESOURCE_NAME,
        }),
      ],
      redactedFields: [
        { singleHeader: { Name: 'authorization' } },
        { singleHeader: { Name: 'cookie' } },
        { queryString: {} },
      ],
      // What was let through is in the access log already.
      loggingFilter: {
        DefaultBehavior: 'DROP',
        Filters: [
          {
            Behavior: 'KEEP',
            Requirement: 'MEETS_ANY',
            Conditions: [{ ActionCondition: { Action: 'BLOCK' } }],
          },
        ],
      },
    });
  }
}

/** The names of what counts requests, in its metrics too. */
export const rateRules = { perAddress: 'per-address', perToken: 'per-token' } as const;

const tooMany = 'too-many';
/** A part of the five minutes that are counted: enough for a loop to slow down. */
const retryAfterSeconds = 60;

const visibility = (metricName: string) => ({
  cloudWatchMetricsEnabled: true,
  // Samples would hold the token.
  sampledRequestsEnabled: false,
  metricName,
});

const limit = (
  priority: number,
  name: string,
  rateBasedStatement: CfnWebACL.RateBasedStatementProperty,
): CfnWebACL.RuleProperty => ({
  priority,
  name,
  // In place of the gateway's answer to what is filtered: an agent that is told to wait comes back, one that is refused gives up.
  action: {
    block: {
      customResponse: {
        responseCode: 429,
        customResponseBodyKey: tooMany,
        responseHeaders: [{ name: 'Retry-After', value: String(retryAfterSeconds) }],
      },
    },
  },
  statement: { rateBasedStatement },
  visibilityConfig: visibility(name),
});

const managed = (priority: number, name: string): CfnWebACL.RuleProperty => ({
  priority,
  name,
  overrideAction: { none: {} },
  statement: { managedRuleGroupStatement: { vendorName: 'AWS', name } },
  visibilityConfig: visibility(name),
});
