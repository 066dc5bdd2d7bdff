import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { functions } from '../../infra/functions.ts';
import { FunctionError } from '../../infra/local/lambda/environment.ts';
import { checks, type Target } from '../../infra/verify/checks.ts';
import { verify } from '../../infra/verify/verify.ts';
import { slowness } from '../lib/health/support.ts';
import { type Deployment, deploy } from './deployment.ts';
import { operate, result, until } from './operator.ts';

/** The synthesized system, under AWS's own runtime interface client: bundles, environments, rights, state machines. */
let deployed: Deployment;
let operator: ReturnType<typeof operate>;
beforeAll(async () => {
  deployed = await deploy();
  operator = operate(deployed);
});
afterAll(() => deployed?.close());

describe('the installation', () => {
  it('makes keys, roles, catalog and runtime with the master’s password, which is of no use afterwards', async () => {
    const { Data } = await deployed.install('Create');
    expect(JSON.parse(Data.ApiKeyJwks!).keys).toEqual([expect.objectContaining({ kty: 'EC', alg: 'ES256' })]);
    expect(Data.ApiKeyJwks).not.toContain('"d"');
    const [member] = await deployed.server.ask(
      'postgres',
      `select pg_has_role('tenantry_master', 'tenancy_provisioner', 'member') as locked_out`,
    );
    expect(member).toEqual({ locked_out: true });
    await deployed.server.refuseMaster();
  });

  it('runs again at the next deployment, without that password', async () => {
    deployed.runtimes.get('install')!.close();
    const before = await deployed.server.ask('tenantry_catalog', 'select * from catalog.clusters');
    await deployed.install('Update');
    expect(await deployed.server.ask('tenantry_catalog', 'select * from catalog.clusters')).toEqual(before);
  });

  it('keeps what is installed when the stack goes', async () => {
    await deployed.host.invoke('install', { RequestType: 'Delete', PhysicalResourceId: 'tenantry' });
    expect(await deployed.server.ask('tenantry_catalog', 'select from catalog.clusters')).toHaveLength(1);
  });
});

const kinds = [
  ['acme', { tier: 'starter' }],
  ['globex', { tier: 'pro' }],
  ['initech', { tier: 'enterprise', placement: 'shared-cluster' }],
] as const;

describe.each(kinds)('a tenant %s (%j)', (slug, more) => {
  let token: string;

  it('is created by the admin function, and by the state machine where that takes longer', async () => {
    await operator.create(slug, more);
    token = await operator.keyOf(slug);
    expect(token).toMatch(/^tnt_/);
  });

  it('lists its tools and calls them, through the authorizer and the MCP function', async () => {
    const listed = await operator.call(token, 'tools/list');
    expect(listed.statusCode).toBe(200);
    expect(result(listed.body).tools.length).toBeGreaterThan(3);
    const found = await operator.call(token, 'tools/call', { name: 'list_low_stock', arguments: {} });
    expect(found.statusCode, found.body).toBe(200);
    expect(result(found.body).isError, found.body).toBeUndefined();
  });

  it('gets a streamed answer in the form that API Gateway reads: status and headers first', async () => {
    const { chunks, headers, statusCode } = await operator.call(token, 'tools/list');
    expect(statusCode).toBe(200);
    expect(headers['content-type']).toMatch(/application\/json|text\/event-stream/);
    expect(Buffer.concat(chunks).indexOf(Buffer.alloc(8))).toBeGreaterThan(0);
  });

  it('is suspended at once and served again afterwards', async () => {
    expect((await operator.admin('POST', `/tenants/${slug}/suspend`)).body).toMatchObject({ result: 'done' });
    expect(
      (await operator.call(token, 'tools/call', { name: 'list_low_stock', arguments: {} })).statusCode,
    ).toBe(403);
    expect((await operator.admin('POST', `/tenants/${slug}/resume`)).body).toMatchObject({ result: 'done' });
    const again = await operator.call(token, 'tools/call', { name: 'list_low_stock', arguments: {} });
    expect([again.statusCode, result(again.body).isError]).toEqual([200, undefined]);
  });
});

describe('the watch', () => {
  /** Again, on a machine that is too busy for a handshake: that is not what is tried here. */
  const look = () =>
    until(
      () => deployed.host.invoke('health-canary', {}) as Promise<{ state: string; problems: string[] }>,
      ({ problems }) => !problems.some((line) => slowness.test(line)),
      5,
    );

  it('makes its canaries, finds every tenant kept apart, and says so to everybody', async () => {
    const found = await until(look, ({ state }) => state === 'ok', 20);
    expect(found).toMatchObject({ state: 'ok' });
    const answer = (await deployed.host.invoke('health', { httpMethod: 'GET', path: '/health' })) as {
      statusCode: number;
      body: string;
    };
    expect(answer.statusCode, answer.body).toBe(200);
    expect(JSON.parse(answer.body)).toMatchObject({ status: 'ok' });
  });

  it('calls the public URL with keys of its own, and says when nobody can', async () => {
    // A run that finds a strategy's canaries makes their key; the next one uses it.
    const slugs = ['rls', 'schema', 'database'].map((strategy) => `canary-${strategy}-a`);
    await until(
      async () => {
        await look();
        return Promise.all(slugs.map((slug) => operator.admin('GET', `/tenants/${slug}/keys`)));
      },
      (answers) => answers.every(({ body }) => body.keys?.length > 0),
      30,
    );
    expect(await look()).toEqual({ state: 'ok', problems: [] });
    const asked = new Set(deployed.gate.calls.map(({ caller, action }) => `${caller} ${action}`));
    expect(asked).toContain('endpoint-canary secretsmanager:GetSecretValue');
    const reopen = await deployed.closePublicUrl();
    const { state, problems } = await look().finally(reopen);
    expect(state).toBe('degraded');
    expect(problems.join('\n')).toMatch(/public_url: canary-schema-a at .* ECONNREFUSED/);
    expect(await look()).toEqual({ state: 'ok', problems: [] });
  });

  it('tries the password of a tenant on an instance of its own, and says when its secret holds another', async () => {
    await operator.create('umbrella', { tier: 'enterprise' });
    const { id } = (await operator.admin('GET', '/tenants/umbrella')).body;
    const { secrets } = deployed.emulator;
    const secret = secrets.live(`mcp-tenant-db/${id}`);
    const { string: SecretString } = secrets.value(secret);
    const said = async () => (await look()).problems.filter((line) => line.startsWith('secrets: '));
    expect(await said()).toEqual([]);
    const other = JSON.stringify({ ...JSON.parse(SecretString!), password: 'another' });
    await secrets.put(secret, { SecretString: other });
    const line = `secrets: secret mcp-tenant-db/${id} of umbrella has a password that its login is refused with`;
    expect(await said()).toEqual([expect.stringContaining(line)]);
    await secrets.put(secret, { SecretString });
    expect(await said()).toEqual([]);
  });
});

describe('npm run verify:aws', () => {
  let target: Target;

  beforeAll(async () => {
    target = {
      url: deployed.publicUrl,
      key: await operator.keyOf('acme'),
      narrowKey: await operator.keyOf('acme', ['inventory:read']),
      // The public name is this gateway's.
      fetch: (address, init) =>
        fetch(
          String(address).replace(/^https:\/\/abc123[^/]*\/live/, `http://127.0.0.1:${deployed.publicPort}`),
          init,
        ),
      proxyMaximum: async () => 0,
      calls: 40,
    };
  });

  it('finds that everything holds', async () => {
    const verdicts = await verify(target);
    expect(verdicts.filter(({ outcome }) => outcome !== 'holds')).toEqual([]);
    expect(verdicts).toHaveLength(checks.length);
  });

  it('leaves out what it was given nothing for', async () => {
    const { narrowKey, proxyMaximum, ...less } = target;
    const left = (await verify(less)).filter(({ outcome }) => outcome === 'left out');
    expect(left.map(({ saw }) => saw)).toEqual(['set VERIFY_NARROW_KEY', 'set VERIFY_PROXY']);
  });

  it('asks what needs no tenant where it has no key', async () => {
    const { key, narrowKey, ...less } = target;
    const verdicts = await verify(less);
    expect(verdicts.map(({ outcome }) => outcome).filter((outcome) => outcome === 'does not hold')).toEqual(
      [],
    );
    expect(verdicts.filter(({ outcome }) => outcome === 'holds').map(({ check }) => check.name)).toEqual([
      'a call without a token is told where to log in',
      'the metadata that it points to can be read',
      'a false token is refused in the same words',
      'GET /health says ok',
    ]);
  });

  it('says what it saw where something does not hold', async () => {
    const broken: Target = {
      ...target,
      proxyMaximum: async () => 3,
      // A gateway that loses the header by which a login begins, a proxy that tears statements apart, an ill system.
      fetch: async (address, init) => {
        const answer = await target.fetch(address, init);
        if (answer.status === 401 || answer.status === 403)
          return new Response('{}', { status: answer.status });
        if (String(address).endsWith('/health')) return Response.json({ status: 'broken' }, { status: 503 });
        if (String(init?.body).includes('tools/call')) return Response.json({ result: { isError: true } });
        return answer;
      },
    };
    const failed = (await verify(broken)).filter(({ outcome }) => outcome === 'does not hold');
    expect(failed).toHaveLength(checks.length - 1);
    expect(failed.map(({ saw }) => saw).join('\n')).toMatch(
      /no WWW-Authenticate[\s\S]*3 connections were pinned[\s\S]*503, broken/,
    );
  });
});

describe('rights', () => {
  it('were enough for all of it, and every call of AWS was asked for them', () => {
    expect(deployed.refused).toEqual([]);
    const asked = new Set(deployed.gate.calls.map(({ caller, action }) => `${caller} ${action}`));
    expect([...asked].sort()).toEqual(
      expect.arrayContaining([
        'admin states:StartExecution',
        'install secretsmanager:PutSecretValue',
        'mcp secretsmanager:GetSecretValue',
        'provision-tenant lambda:InvokeFunction',
        'provision-tenant secretsmanager:CreateSecret',
      ]),
    );
  });

  it('are missing where a function would need more: the gate is shut', async () => {
    const before = deployed.refused.length;
    const { url } = deployed.gate;
    const answer = await fetch(url, {
      method: 'POST',
      headers: {
        authorization: 'AWS4-HMAC-SHA256 Credential=mcp/20260101/eu-west-1/secretsmanager/aws4_request, x',
        'x-amz-target': 'secretsmanager.GetSecretValue',
      },
      body: JSON.stringify({ SecretId: 'rds!cluster-shared' }),
    });
    expect(answer.status).toBe(400);
    expect(deployed.refused.splice(before)).toHaveLength(1);
  });
});

describe('logins', () => {
  /** Of the role itself, and of whatever it could become. */
  const attributes = `select current_user::text as me, session_user::text as session,
      bool_or(rolsuper) as super, bool_or(rolbypassrls) as bypassrls, bool_or(rolreplication) as replication,
      bool_or(rolcreaterole) as createrole, bool_or(rolcreatedb) as createdb
    from pg_roles where pg_has_role(current_user, oid, 'member')`;

  it.each(functions.map(({ name, inVpc }) => [name, inVpc] as const))(
    '%s connects as whomever its role names, and is no more than that',
    async (name, inVpc) => {
      const logins = await deployed.loginsOf(name);
      expect(logins.length > 0).toBe(inVpc);
      for (const { login, database } of logins) {
        const makes = login === 'tenancy_provisioner';
        expect(await deployed.server.askAs(login, database, attributes), login).toEqual({
          me: login,
          session: login,
          super: false,
          bypassrls: false,
          replication: false,
          createrole: makes,
          createdb: makes,
        });
      }
    },
  );

  it('are none of the control plane’s where agents are served, and none of the homes’ elsewhere', async () => {
    const named = async (name: string) =>
      new Set((await deployed.loginsOf(name)).map(({ login }) => login.replace(/^t_.*/, 't_…')));
    const data = ['t_…', 'tenancy_app', 'tenancy_catalog_reader'];
    expect([...(await named('mcp'))].sort()).toEqual(data);
    expect([...(await named('health'))]).toEqual(['tenancy_catalog_reader']);
    expect([...(await named('health-canary'))].sort()).toEqual([...data, 'tenancy_provisioner']);
    for (const { name, plane, inVpc } of functions)
      if (plane !== 'data' && inVpc && name !== 'health-canary')
        expect([...(await named(name))], name).toEqual(['tenancy_provisioner']);
  });

  it('prove themselves by IAM, all of them, and have only the attributes that they need', async () => {
    const roles = await deployed.server.ask(
      'postgres',
      `select rolname, rolsuper, rolbypassrls, rolcreaterole, rolcreatedb, rolreplication, rolpassword is not null as password,
              pg_has_role(rolname, 'rds_iam', 'member') as iam
         from pg_authid where rolcanlogin and rolname ~ '^(tenancy_|t_)' order by 1`,
    );
    const names = new Set(roles.map(({ rolname }) => (rolname as string).replace(/^t_.*/, 't_…')));
    expect([...names]).toEqual(['t_…', 'tenancy_app', 'tenancy_catalog_reader', 'tenancy_provisioner']);
    for (const role of roles) {
      const makes = role.rolname === 'tenancy_provisioner';
      expect(role).toMatchObject({
        rolsuper: false,
        rolbypassrls: false,
        rolreplication: false,
        rolcreaterole: makes,
        rolcreatedb: makes,
        password: false,
        iam: true,
      });
    }
  });
});

it('is told by the runtime client when a function fails', async () => {
  const failing = deployed.host.invoke('provision-tenant', {
    operation: randomUUID(),
    step: 'no-such-step',
    input: {},
  });
  await expect(failing).rejects.toBeInstanceOf(FunctionError);
});
