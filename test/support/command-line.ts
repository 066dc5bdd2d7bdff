import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { expect } from 'vitest';

const helps = new Map<string, Promise<string>>();

/** What the operator's command line says of itself, or of one of its commands. */
export function help(...commands: string[]): Promise<string> {
  const args = ['functions/admin/cli/main.ts', ...commands, '--help'];
  const key = commands.join(' ');
  if (!helps.has(key))
    helps.set(
      key,
      promisify(execFile)(process.execPath, args).then(({ stdout }) => stdout),
    );
  return helps.get(key)!;
}

/** Each word is a command of the one before. */
export async function expectCommands(commands: readonly string[], where: string): Promise<void> {
  for (const [depth, command] of commands.entries())
    expect(await help(...commands.slice(0, depth)), where).toMatch(new RegExp(`^ {2}${command}\\b`, 'm'));
}
