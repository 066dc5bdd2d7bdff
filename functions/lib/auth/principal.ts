/**
 * What the authorizer verified about a caller, as flat strings: the form in which API Gateway hands it to the MCP
 * function. Nothing else of a request says who is asking.
 */
export interface Principal {
  /** The tenant claim as received: a tenant id, or the identity provider's own organisation id. `catalog.resolve` maps it. */
  readonly tenant: string;
  /** The token's subject, or the API key's id. */
  readonly principal: string;
  /** Space-separated, as in OAuth. */
  readonly scopes: string;
  /** `oidc:<issuer>`, `key:<api key id>`, or `productAuth`. */
  readonly auth: string;
}

/** The auth of a principal that no authorizer gives: the product itself, past API Gateway. `catalog.resolve` knows it too. */
export const productAuth = 'verify';

/** What a canary's own API key is for. No other key has it: no tool of a team may ask for it. */
export const probeScope = 'tenancy:probe';
