import { Match, type Template } from 'aws-cdk-lib/assertions';
import { beforeAll, describe, expect, it } from 'vitest';
import { protectedResourceMetadata, routes } from '../../infra/endpoint.ts';
import { functionNamed } from '../../infra/functions.ts';
import { type Synthesized, synthesize } from './synthesize.ts';

const publicUrl = 'https://mcp.example.com/mcp';
const issuer = 'https://login.example.com/';
const domain = {
  name: 'mcp.example.com',
  certificateArn: 'arn:aws:acm:eu-west-1:111122223333:certificate/abc',
};

let built: Synthesized;
let template: Template;
beforeAll(() => {
  built = synthesize({ domain, issuers: [{ issuer, jwksUri: `${issuer}.well-known/jwks.json` }] });
  template = built.template('endpoint');
});

interface Resource {
  Type: string;
  // biome-ignore lint/suspicious/noExplicitAny: a template's properties are whatever their type has
  Properties: any;
}
const resources = (type: string): [string, Resource][] =>
  Object.entries(template.findResources(type)) as never;
const only = (type: string, id: RegExp) => resources(type).find(([name]) => id.test(name))![1].Properties;

describe('the API', () => {
  it('is regional, and has no second address beside its domain', () => {
    template.hasResourceProperties('AWS::ApiGateway::RestApi', {
      EndpointConfiguration: { Types: ['REGIONAL'] },
      DisableExecuteApiEndpoint: true,
    });
    template.hasResourceProperties('AWS::ApiGateway::BasePathMapping', { BasePath: Match.absent() });
  });

  it('has exactly the routes of the endpoint, with the authorizer where they say so', () => {
    const path = (id: string): string => {
      const parent = only('AWS::ApiGateway::Resource', new RegExp(`^${id}$`));
      const above = parent.ParentId.Ref ? path(parent.ParentId.Ref) : '';
      return `${above}/${parent.PathPart}`;
    };
    const methods = resources('AWS::ApiGateway::Method').map(([, { Properties }]) => ({
      method: Properties.HttpMethod,
      path: path(Properties.ResourceId.Ref),
      authorized: Properties.AuthorizationType === 'CUSTOM' && Properties.AuthorizerId !== undefined,
    }));
    const expected = routes.map(({ method, path, authorized }) => ({ method, path, authorized }));
    expect(new Set(methods)).toEqual(new Set(expected));
    expect(methods).toHaveLength(expected.length);
  });

  it('asks the authorizer every time', () => {
    template.hasResourceProperties('AWS::ApiGateway::Authorizer', {
      Type: 'REQUEST',
      AuthorizerResultTtlInSeconds: 0,
      IdentitySource: 'method.request.header.Authorization',
    });
  });

  it('streams the MCP function’s answers, as long as the function may run', () => {
    template.hasResourceProperties('AWS::ApiGateway::Method', {
      HttpMethod: 'POST',
      Integration: {
        ResponseTransferMode: 'STREAM',
        TimeoutInMillis: functionNamed('mcp').timeoutSeconds * 1000,
        Uri: Match.objectLike({
          'Fn::Join': ['', Match.arrayWith([Match.stringLikeRegexp('response-streaming-invocations$')])],
        }),
      },
    });
  });

  it('answers the metadata itself', () => {
    const facts = {
      publicUrl,
      issuers: ['https://login.example.com/'],
      scopes: ['things:read', 'things:write'],
      allowedOrigins: [],
    };
    template.hasResourceProperties('AWS::ApiGateway::Method', {
      HttpMethod: 'GET',
      Integration: {
        Type: 'MOCK',
        IntegrationResponses: [
          { ResponseTemplates: { 'application/json': JSON.stringify(protectedResourceMetadata(facts)) } },
        ],
      },
    });
  });

  it('tells a client without a token where to log in, and one without a scope what to ask for', () => {
    template.hasResourceProperties('AWS::ApiGateway::GatewayResponse', {
      ResponseType: 'UNAUTHORIZED',
      StatusCode: '401',
      ResponseParameters: {
        'gatewayresponse.header.WWW-Authenticate':
          '\'Bearer scope="things:read things:write", resource_metadata="https://mcp.example.com/.well-known/oauth-protected-resource/mcp"\'',
      },
    });
    template.hasResourceProperties('AWS::ApiGateway::GatewayResponse', {
      ResponseType: 'ACCESS_DENIED',
      StatusCode: '403',
      ResponseParameters: { 'gatewayresponse.header.WWW-Authenticate': 'context.authorizer.challenge' },
    });
  });

  it('lets pages of the allowed origins call, and none where no origin is', () => {
    const origins = ['https://app.example.com', 'https://other.example.com'];
    const open = synthesize({ domain, allowedOrigins: origins }).template('endpoint');
    open.hasResourceProperties('AWS::ApiGateway::Method', {
      HttpMethod: 'OPTIONS',
      AuthorizationType: 'NONE',
      Integration: {
        Type: 'MOCK',
        IntegrationResponses: [
          {
            StatusCode: '204',
            ResponseParameters: {
              'method.response.header.Access-Control-Allow-Origin': `'${origins[0]}'`,
              'method.response.header.Access-Control-Allow-Methods': "'POST,GET,DELETE'",
              'method.response.header.Access-Control-Allow-Headers': "'Authorization,*'",
            },
            ResponseTemplates: { 'application/json': Match.stringLikeRegexp(`== "${origins[1]}"`) },
          },
        ],
      },
    });
    const readable = Match.objectLike({ 'gatewayresponse.header.Access-Control-Allow-Origin': "'*'" });
    const answers = open.findResources('AWS::ApiGateway::GatewayResponse');
    open.resourcePropertiesCountIs(
      'AWS::ApiGateway::GatewayResponse',
      { ResponseParameters: readable },
      Object.keys(answers).length,
    );
    template.resourcePropertiesCountIs(
      'AWS::ApiGateway::GatewayResponse',
      { ResponseParameters: readable },
      0,
    );
  });

  it('logs no header, no query and no body', () => {
    const stage = only('AWS::ApiGateway::Stage', /./);
    expect(stage.AccessLogSetting.Format).not.toMatch(/header|querystring|body|override/i);
    for (const method of stage.MethodSettings) expect(method.DataTraceEnabled).toBe(false);
  });
});

it('gives each function the settings that it reads', () => {
  const environment = (id: RegExp) => only('AWS::Lambda::Function', id).Environment.Variables;
  expect(environment(/^mcpFunction/)).toMatchObject({
    PUBLIC_URL: publicUrl,
    CREDENTIALS: 'iam',
    DATABASE_TLS: 'verify',
  });
  expect(JSON.parse(environment(/^authorizerFunction/).TOOLS_BY_SCOPES)).toEqual({
    'things:read': ['look'],
    'things:read things:write': ['change'],
  });
  expect(JSON.parse(environment(/^authorizerFunction/).ISSUERS)).toEqual([
    {
      audience: publicUrl,
      issuer: 'https://login.example.com/',
      jwksUri: 'https://login.example.com/.well-known/jwks.json',
    },
  ]);
});

describe('an environment', () => {
  const many = (count: number, scopes: (index: number) => string[]) =>
    Array.from({ length: count }, (_, index) => ({ name: `adjust_thing_${index}`, scopes: scopes(index) }));

  it('has room for a hundred tools that share scopes', () => {
    const tools = many(100, (index) => (index % 2 === 0 ? ['things:read'] : ['things:read', 'things:write']));
    expect(() => synthesize({}, tools)).not.toThrow();
  });

  it('that Lambda would refuse fails synthesis, with the sum and what to do', () => {
    const tools = many(100, (index) => ['things:read', `things:write:${index}`]);
    expect(() => synthesize({}, tools)).toThrow(
      /environment of authorizer[\s\S]*TOOLS_BY_SCOPES[\s\S]*together[\s\S]*shorter names/,
    );
  });
});

it('says what agents are given and where the name must point', () => {
  const outputs = Object.values(template.findOutputs('*')) as { Value: unknown; Description?: string }[];
  const said = outputs.filter(({ Description }) => Description).map(({ Value }) => Value);
  expect(said).toEqual([
    { 'Fn::GetAtt': [expect.stringMatching(/Domain/), 'RegionalDomainName'] },
    publicUrl,
  ]);
});

it('stands below API Gateway’s stage when it has no domain', () => {
  const bare = synthesize().template('endpoint');
  bare.resourceCountIs('AWS::ApiGateway::DomainName', 0);
  bare.hasResourceProperties('AWS::ApiGateway::GatewayResponse', {
    ResponseType: 'UNAUTHORIZED',
    ResponseParameters: {
      'gatewayresponse.header.WWW-Authenticate': Match.objectLike({
        'Fn::Join': [
          '',
          Match.arrayWith([Match.stringLikeRegexp('^/live/.well-known/oauth-protected-resource/mcp')]),
        ],
      }),
    },
  });
});
