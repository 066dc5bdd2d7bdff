import { appendFile } from 'node:fs/promises';
import { setTimeout } from 'node:timers/promises';

export class NotThere extends Error {
  override name = 'NotThere';
}

/** Answers what it was sent, late or not at all if it is told so, and leaves a mark in a file if it gets one. */
export async function handler(event: { fails?: boolean; delayMs?: number; mark?: string }): Promise<unknown> {
  if (event.mark) await appendFile(event.mark, '.');
  if (event.fails) throw new NotThere('it is not there');
  if (event.delayMs) await setTimeout(event.delayMs);
  return { echo: event };
}
