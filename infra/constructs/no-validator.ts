/** In place of a JSON Schema validator of 150 KB that a stateless server never asks. It says so, should that change. */
export class DefaultJsonSchemaValidator {
  constructor() {
    throw new TypeError('The bundle has no default JSON Schema validator: pass `jsonSchemaValidator`.');
  }
}

/** Its name in the package of the older revisions. */
export { DefaultJsonSchemaValidator as AjvJsonSchemaValidator };
