import type { APIGatewayProxyEvent } from 'aws-lambda';
import type { Admin } from '../../functions/lib/admin/admin.ts';
import { answerAdmin } from '../../functions/lib/admin/api.ts';
import { newSigningKey } from '../../functions/lib/auth/api-key.ts';
import { startWorld, type World } from '../support/world.ts';

export const url = 'http://127.0.0.1:8080/mcp';
export const issuer = 'https://login.example.com';

export interface Answer {
  status: number;
  // biome-ignore lint/suspicious/noExplicitAny: JSON as a client gets it
  body: any;
}

export interface AdminWorld {
  world: World;
  admin: Admin;
  publicKey: Awaited<ReturnType<typeof newSigningKey>>['publicKey'];
  /** What was not the caller's. */
  faults: unknown[];
  /** What the state machine was asked for; it does not run. */
  started: { machine: string; name: string; input: unknown }[];
  ask(
    method: string,
    path: string,
    body?: unknown,
    headers?: Record<string, string>,
    query?: Record<string, string>,
  ): Promise<Answer>;
}

/** The admin API in-process, over a real catalog and real homes. */
export async function startAdmin(): Promise<AdminWorld> {
  const world = await startWorld();
  const pair = await newSigningKey();
  const signing = JSON.stringify({ private: pair.privateKey, public: pair.publicKey });
  await world.secrets.write('tenancy/api-key-signing', signing);
  const started: AdminWorld['started'] = [];
  const faults: unknown[] = [];
  const admin: Admin = {
    plane: world.plane,
    release: async () => world.release,
    workflows: {
      async start(machine, name, input) {
        started.push({ machine, name, input });
        return name;
      },
      describe: async () => ({ status: 'RUNNING' }),
    },
    settings: {
      connectionFacts: undefined,
      region: 'eu-west-1',
      provisionMachine: 'arn:aws:states:eu-west-1:111122223333:stateMachine:provision-tenant',
      migrateMachine: 'arn:aws:states:eu-west-1:111122223333:stateMachine:migrate-tenants',
      moveMachine: 'arn:aws:states:eu-west-1:111122223333:stateMachine:move-tenant',
      batchMachine: 'arn:aws:states:eu-west-1:111122223333:stateMachine:batch-moves',
      offboardMachine: 'arn:aws:states:eu-west-1:111122223333:stateMachine:offboard-tenant',
      waitFactor: 1,
      exportMachine: 'arn:aws:states:eu-west-1:111122223333:stateMachine:export-tenant',
      importMachine: 'arn:aws:states:eu-west-1:111122223333:stateMachine:import-tenant',
      exportUrl: 's3://tenantry-exports/offboarded',
      transferSchemes: ['s3'],
      tiers: { starter: 'rls', pro: 'schema', enterprise: 'database' },
      publicUrl: url,
      apiKeyIssuer: url,
      signingKeySecret: 'tenancy/api-key-signing',
      scopes: ['notes:read', 'notes:write'],
      issuers: [issuer],
    },
  };
  return {
    world,
    admin,
    publicKey: pair.publicKey,
    started,
    faults,
    async ask(method, path, body, headers = {}, query) {
      const event: Partial<APIGatewayProxyEvent> = {
        httpMethod: method,
        path,
        headers,
        queryStringParameters: query ?? null,
        body: body === undefined ? null : typeof body === 'string' ? body : JSON.stringify(body),
        isBase64Encoded: false,
      };
      const answer = await answerAdmin(
        async () => admin,
        event as APIGatewayProxyEvent,
        (error) => faults.push(error),
      );
      return { status: answer.statusCode, body: JSON.parse(answer.body) };
    },
  };
}

export const code = ({ status, body }: Answer) => [status, body.error?.code];
