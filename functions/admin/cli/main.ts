import { Command, CommanderError } from 'commander';
import type { OperationView, OperationWithSteps } from '../../lib/admin/operations.ts';
import { TenantryError } from '../../lib/errors.ts';
import { readCliSettings } from '../../lib/settings.ts';
import { CommandFailure, connect } from './connection.ts';
import { operationsTable, operationText, watchOperations } from './follow.ts';
import { healthCommand } from './health.ts';
import { keyCommands } from './keys.ts';
import { migrateCommands } from './migrate.ts';
import { moveCommands } from './move.ts';
import { offboardCommand } from './offboard.ts';
import { createOutput } from './output.ts';
import { tenantCommands } from './tenants.ts';
import { transferCommands } from './transfer.ts';

/** Before commander has read it: its own refusals are for programs, too. */
const asksJson = process.argv.includes('--json');

/** `npm run tenants -- …`: the operator's command line over the admin API. */
const program = new Command('npm run tenants --')
  .description('Operates tenants.')
  .option('--json', 'one JSON value instead of tables')
  .addHelpText(
    'after',
    '\nmigrate, export and import end when it is done (--no-wait: when it has begun); create, offboard and move the other way round (--wait).\n' +
      'Exit codes: 0 done, 1 failed, 2 usage, 3 refused, 4 not reachable.\n' +
      'It finds the local cloud by itself (TENANTRY_STATE, PORT as for `npm start`); TENANTRY_ADMIN_URL names a deployed one.',
  )
  .showHelpAfterError('(add --help for what there is)')
  .configureOutput({ writeErr: (text) => void (asksJson || process.stderr.write(text)) })
  .exitOverride();
const output = () => createOutput(program.opts<{ json?: boolean }>().json ?? false);
const client = connect(readCliSettings);

tenantCommands(program, client, output);
moveCommands(program, client, output);
offboardCommand(program, client, output);
transferCommands(program, client, output);
keyCommands(program, client, output);
migrateCommands(program, client, output);
healthCommand(program, client, output);
const operations = program
  .command('operations [id]')
  .description('what runs and what ran; one of them with its steps')
  .option('--watch', 'as it happens')
  .action(async (id: string | undefined, { watch }) => {
    if (watch) return watchOperations(client, output());
    if (id !== undefined) {
      const { body } = await client.get<OperationWithSteps>(`/operations/${encodeURIComponent(id)}`);
      return output().answer(body, operationText(body));
    }
    const { body } = await client.get<{ operations: OperationView[] }>('/operations');
    output().answer(body.operations, operationsTable(body.operations));
  });
operations
  .command('cancel <id>')
  .description('end an export or an import that is under way, or leave a move or one of these at its failure')
  .action(async (id: string) => {
    const { body } = await client.post<OperationView>(`/operations/${encodeURIComponent(id)}/cancel`, {});
    output().answer(
      body,
      body.state === 'cancelled'
        ? 'It stays as it is, and the watch tells of it no longer.'
        : 'It ends within seconds; an import that is writing a large table, when that is written.',
    );
    output().note(`npm run tenants -- operations ${id}`);
  });
// Wherever it stands: after the command is where people write it.
const acceptJson = (command: Command) => {
  for (const inner of command.commands) {
    inner
      .option('--json', 'one JSON value instead of tables')
      .on('option:json', () => program.setOptionValue('json', true));
    acceptJson(inner);
  }
};
acceptJson(program);

// `… | head` has read enough.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code !== 'EPIPE') throw error;
  process.exit();
});
try {
  await program.parseAsync();
} catch (error) {
  process.exitCode = exitCodeOf(error);
}

function exitCodeOf(error: unknown): number {
  if (error instanceof CommanderError) {
    const message =
      error.code === 'commander.help'
        ? 'There are several: --help names them.'
        : error.message.replace(/^error: /, '');
    // To people commander has said it already.
    if (asksJson && error.exitCode !== 0) complain(JSON.stringify({ error: { code: 'usage', message } }));
    return error.exitCode === 0 ? 0 : 2;
  }
  if (error instanceof CommandFailure || error instanceof TenantryError) {
    const { code, message } = error;
    complain(output().json ? JSON.stringify({ error: { code, message } }) : message);
    return error instanceof CommandFailure ? error.exitCode : 2;
  }
  complain(error instanceof Error ? (error.stack ?? error.message) : String(error));
  return 1;
}

function complain(text: string): void {
  process.stderr.write(`${text}\n`);
}
