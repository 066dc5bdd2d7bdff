import { extensionsSetting, temporary, unqualified } from './refused.ts';

/** A statement that no migration runs: what it would do, and what to write instead. */
interface Rule {
  readonly form: RegExp;
  /** Tried on the statement without what is quoted: a form that may stand anywhere in it. */
  readonly anywhere?: true;
  readonly what: string;
  readonly remedy: string;
}

const transactions = 'leave transactions and roles to the migrator: a file is one transaction already';
const roles = 'leave transactions and roles to the migrator: logins and their rights come with homes';
const schemas = 'leave schemas to the migrator: names without a schema are the home’s own';
const outside =
  'leave it out: a file makes tables, indexes, views, types, functions and triggers of its home, nothing for a whole database or server';
const noWall = {
  what: 'passes values on where there is no wall',
  remedy:
    'write them into a table of the home: whoever is connected to the database hears a notification, and large objects belong to no home',
};
const rows =
  'write the rows as `insert into … values` (pg_dump: `--inserts`), in a file that begins with `-- shared` where every tenant reads them; a tenant’s own come by `npm run tenants -- import`';

/** The first that fits. Tried on text without comments; a keyword is one wherever PostgreSQL sees one. */
const rules: readonly Rule[] = [
  {
    form: /^\\/,
    what: 'has a command of psql',
    remedy: 'delete the line: only SQL runs here, from a pg_dump too',
  },
  { form: /^copy\b/i, what: 'contains `copy`', remedy: rows },
  {
    form: /^(begin|start|commit|end|rollback|abort|savepoint|release|prepare|set\s+(local\s+|session\s+)?(session\s+characteristics|transaction))\b/i,
    what: 'handles transactions',
    remedy: transactions,
  },
  {
    form: /^(set\s+(local\s+|session\s+)?(role|session\s+authorization)|reset\s+(role|session)|(create|alter|drop)\s+(role|user(?!\s+mapping)|group)|(grant|revoke)\s+(?![^;]*\bon\b)|reassign|drop\s+owned)\b/i,
    what: 'handles roles',
    remedy: roles,
  },
  {
    form: /^(set\s+(local\s+|session\s+)?(search_path|schema)|reset\s+search_path|(create|alter|drop)\s+schema)\b/i,
    what: 'handles schemas',
    remedy: schemas,
  },
  {
    form: /^(reset\s+all|discard)\b/i,
    what: 'resets the session',
    remedy: 'leave it out: what a file sets ends with it',
  },
  {
    form: /^vacuum\b/i,
    what: 'contains `vacuum`',
    remedy: 'leave it out: it knows no transaction, and the server does it by itself',
  },
  {
    form: /^alter\s+default\s+privileges\b/i,
    what: 'changes default privileges',
    remedy: 'leave rights to the migrator: these would hold in all homes, and outlive the file',
  },
  {
    form: /^(create|alter|drop)\s+(publication|subscription)\b/i,
    what: 'publishes tables',
    remedy: 'leave it out: what is replicated has no wall',
  },
  {
    form: /^((create|alter|drop)\s+(or\s+replace\s+)?(database|tablespace|server|foreign\s+data\s+wrapper|user\s+mapping|event\s+trigger|access\s+method|(trusted\s+)?(procedural\s+)?language)|import\s+foreign\s+schema|alter\s+system|load|checkpoint|security\s+label)\b/i,
    what: 'is for a whole database or server',
    remedy: outside,
  },
  {
    form: /^(create|alter|drop)\s+extension\b/i,
    what: 'handles an extension',
    remedy: `name it in ${extensionsSetting} instead; it is installed for all`,
  },
  {
    form: /^create\s+(or\s+replace\s+)?((global|local)\s+)?temp(orary)?\b|^select\b[\s\S]*\binto\s+((global|local)\s+)?temp(orary)?\s+(table\s+)?\w|\bpg_temp\s*\./i,
    anywhere: true,
    what: 'makes something temporary',
    remedy: temporary,
  },
  {
    form: /\bpublic\s*\.|^(drop\b[\s\S]*|(create|alter)\s+(or\s+replace\s+)?(\w+\s+){1,3}(if\s+(not\s+)?exists\s+)?)\b(shared|main|tenancy|tenant_[0-9a-f]{32})\s*\./i,
    anywhere: true,
    what: 'names a schema',
    remedy: unqualified,
  },
  // With rows: a word that a migration is done is nobody's value.
  {
    form: /^(?=[\s\S]*\b(from|update|insert|delete|merge)\b)[\s\S]*\b(pg_notify|lo_(from_bytea|put|import|creat|create)|lowrite)\s*\(/i,
    anywhere: true,
    ...noWall,
  },
  {
    form: /^do\b(?=[\s\S]*\bfrom\b)[\s\S]*\b((pg_notify|lo_(from_bytea|put|import|creat|create)|lowrite)\s*\(|execute\b[\s\S]*\bnotify\s+["\w%]+\s*,)/i,
    ...noWall,
  },
  {
    form: /\b(_migrations|tenancy_probe)\b/i,
    anywhere: true,
    what: 'touches a table of the product’s own',
    remedy: 'leave `_migrations` and `tenancy_probe` to the migrator',
  },
];

/** Before anything runs, by how a statement looks; what hides in a function or DO block, the audit of the transaction finds. */
export const ruleAgainst = (statement: string, bare: string): Omit<Rule, 'form'> | undefined =>
  rules.find(({ form, anywhere }) => form.test(anywhere ? bare : statement));
