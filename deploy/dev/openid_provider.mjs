// A certified OpenID provider (oidc-provider) with Keycloak's paths, grants and claims, for tests.
// `node openid_provider.mjs SETTINGS`, a JSON file: see openid.py beside it.

import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { pathToFileURL } from 'node:url';

const settings = JSON.parse(readFileSync(process.argv[2]));
const { default: Provider, errors } = await import(pathToFileURL(settings.library));

function realm({ name, keys, users, clients }) {
  const paths = '/protocol/openid-connect';
  const provider = new Provider(`${settings.url}/realms/${name}`, {
    jwks: { keys },
    routes: { token: `${paths}/token`, jwks: `${paths}/certs`, userinfo: `${paths}/userinfo` },
    scopes: ['openid', 'profile'],
    clients: Object.keys(clients).map((id) => ({
      client_id: id,
      grant_types: ['password'],
      response_types: [],
      redirect_uris: [],
      token_endpoint_auth_method: 'none',
      // Of the ID token, which comes with the scope openid.
      id_token_signed_response_alg: clients[id].algorithm,
    })),
    clientDefaults: { id_token_signed_response_alg: 'RS256' },
    features: { devInteractions: { enabled: false }, resourceIndicators: { enabled: true } },
    findAccount: (_, id) => users[id] && { accountId: id, claims: () => ({ sub: id }) },
    // What Keycloak puts into access tokens beyond the standard.
    extraTokenClaims: (_, { accountId }) => ({
      typ: 'Bearer',
      preferred_username: users[accountId].name,
      realm_access: { roles: users[accountId].roles },
    }),
  });
  provider.registerGrantType('password', async (ctx) => {
    const { client, params } = ctx.oidc;
    const id = Object.keys(users).find((one) => users[one].name === params.username);
    if (id === undefined || users[id].password !== params.password) {
      throw new errors.InvalidGrant('Invalid user credentials');
    }
    const { audience, algorithm, lifetime } = clients[client.clientId];
    const token = new provider.AccessToken({ accountId: id, client, gty: 'password', scope: 'profile' });
    token.resourceServer = new provider.ResourceServer(audience, {
      audience,
      scope: 'profile',
      accessTokenTTL: lifetime,
      accessTokenFormat: 'jwt',
      jwt: { sign: { alg: algorithm } },
    });
    ctx.oidc.entity('AccessToken', token);
    const identity = new provider.IdToken({ sub: id }, { ctx });
    identity.scope = 'openid';
    ctx.body = {
      access_token: await token.save(),
      expires_in: token.expiration,
      token_type: token.tokenType,
      id_token: await identity.issue({ use: 'idtoken' }),
    };
  }, ['username', 'password', 'scope']);
  return provider.callback();
}

const realms = new Map(settings.realms.map((one) => [`/realms/${one.name}`, realm(one)]));

createServer((request, response) => {
  const [prefix] = /^\/realms\/[^/]+/.exec(request.url) ?? [''];
  const provider = realms.get(prefix);
  if (provider === undefined) {
    response.writeHead(404).end();
    return;
  }
  request.originalUrl = request.url;
  request.url = request.url.slice(prefix.length);
  provider(request, response);
}).listen(settings.port, settings.host);
