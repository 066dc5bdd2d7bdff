import { InvalidArgumentError } from 'commander';

/** Reads an option that is several words, comma-separated. */
export const list = (text: string): string[] => text.split(',').filter(Boolean);

/** Reads an option that is a number. What it may be beyond that the admin API says. */
export function wholeNumber(text: string): number {
  if (!/^(0|[1-9]\d{0,8})$/.test(text)) throw new InvalidArgumentError('It has to be a whole number.');
  return Number(text);
}
