import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { expectCommands, help } from '../support/command-line.ts';

/** Every command line that an operator is told to run, up to where a name or an option begins. */
function told(text: string): string[][] {
  const lines = text.matchAll(/(?:npm run tenants --|\$\{tenants\}) ([a-z]+(?: [a-z]+)*)/g);
  return Array.from(lines, ([, words]) => words!.split(' '));
}

/** Behind a command that has no others of its own come arguments, or the sentence goes on. */
async function requireCommand([first, second]: string[], where: string): Promise<void> {
  await expectCommands([first!], where);
  const hasOthers = second !== undefined && (await help(first!)).includes('\nCommands:\n');
  if (hasOthers) await expectCommands([first!, second], where);
}

it('names in remedies no command that the command line does not have', async () => {
  const files = ['functions', 'infra', 'migrations'].flatMap((folder) =>
    readdirSync(folder, { recursive: true, encoding: 'utf8' })
      .filter((path) => /\.(ts|sql)$/.test(path))
      .map((path) => join(folder, path)),
  );
  const found = files.flatMap((file) => told(readFileSync(file, 'utf8')).map((words) => ({ file, words })));
  expect(found.length).toBeGreaterThan(40);
  for (const { file, words } of found) await requireCommand(words, `${file}: ${words.join(' ')}`);
});
